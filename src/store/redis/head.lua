-- Where a shard's firehose ends, the time, and for how many shards it was made.
-- KEYS: head    ARGV: number of shards of this origin
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local known = redis.call('HMGET', KEYS[1], 'last', 'shards', 'beginning')
if not known[2] or not known[3] then
  known[2] = known[2] or ARGV[1]
  -- A shard that has events without a beginning was written by an earlier version.
  local beginning = known[3] or (known[1] and '0-0') or string.format('%.0f-0', now)
  -- A replica refuses; its master is asked again later.
  redis.pcall('HSET', KEYS[1], 'shards', known[2], 'beginning', beginning)
end
return {known[1] or '0-0', string.format('%.0f', now), known[2]}
