-- The place after which the newest events of publishers lie, or all that are kept.
-- KEYS: log, meta    ARGV: how many
local log, meta = unpack(KEYS)
local known = redis.call('HMGET', meta, 'last', 'closed')
local count, place = tonumber(ARGV[1]), known[1] or '0-0'
-- The end of a channel is no event of a publisher.
if known[2] then count = count + 1 end
local before = '+'
while count > 0 do
  local entries = redis.call('XREVRANGE', log, before, '-', 'COUNT', math.min(count, 32))
  if #entries == 0 then return place end
  count = count - #entries
  -- Every entry names the one before it.
  place = entries[#entries][2][2]
  before = '(' .. entries[#entries][1]
end
return place
