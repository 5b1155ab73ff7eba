-- Returns the end of a shard's firehose, the time (ms), and the number of shards that the shard was
-- made for.
-- KEYS: head    ARGV: number of shards of this origin
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local known = redis.call('HMGET', KEYS[1], 'last', 'shards', 'beginning')
if not known[2] or not known[3] then
  known[2] = known[2] or ARGV[1]
  -- A shard that has events but no beginning was written by an earlier version.
  local beginning = known[3] or (known[1] and '0-0') or string.format('%.0f-0', now)
  -- A replica refuses this write. The master gets the same request later.
  redis.pcall('HSET', KEYS[1], 'shards', known[2], 'beginning', beginning)
end
return {known[1] or '0-0', string.format('%.0f', now), known[2]}
