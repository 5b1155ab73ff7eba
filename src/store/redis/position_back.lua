-- Returns the position that is followed by the newest `count` events of publishers, or by all
-- events that are kept.
-- KEYS: head, log, meta    ARGV: count
local count, before = tonumber(ARGV[1]), '+'
-- The `end` event does not count, because no publisher sent it.
if closed ~= '' then count = count + 1 end
while true do
  local entries = redis.call('XREVRANGE', log, before, '-', 'COUNT', 33)
  if #entries > count then return entries[count + 1][1] end
  if #entries < 33 then return start() end
  -- The last of these entries is the first of the next read.
  count, before = count - 32, entries[33][1]
end
