-- Returns what counts against the limits of the whole store: the number of channels, the bytes of
-- their events and states, and the number of idempotency keys.
-- KEYS: sizes, key counts
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local keys, expired, fields = 0, {}, redis.call('HGETALL', KEYS[2])
for at = 1, #fields, 2 do
  -- The other field is the number of all keys.
  local expiry = tonumber(fields[at])
  if expiry and expiry <= now then
    expired[#expired + 1] = fields[at]
  elseif expiry then
    keys = keys + tonumber(fields[at + 1])
  end
end
if #expired > 0 then
  -- A replica refuses these writes. The master gets the same request later.
  redis.pcall('HDEL', KEYS[2], unpack(expired))
  redis.pcall('HSET', KEYS[2], 'total', string.format('%.0f', keys))
end
local channels = math.max(redis.call('HLEN', KEYS[1]) - 1, 0)
local bytes = redis.call('HGET', KEYS[1], '') or '0'
return {tostring(channels), bytes, string.format('%.0f', keys)}
