-- Where the firehose ends, and the time.
-- KEYS: firehose's head
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return {redis.call('HGET', KEYS[1], 'last') or '0-0', string.format('%.0f', now)}
