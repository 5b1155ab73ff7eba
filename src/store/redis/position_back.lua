-- The place after which the newest events of publishers lie, or all that are kept.
-- KEYS: head, log, meta    ARGV: how many
local count, before = tonumber(ARGV[1]), '+'
-- The end of a channel is no event of a publisher.
if closed ~= '' then count = count + 1 end
while true do
  local entries = redis.call('XREVRANGE', log, before, '-', 'COUNT', 33)
  if #entries > count then return entries[count + 1][1] end
  if #entries < 33 then return start() end
  -- The last of these is the first of the next.
  count, before = count - 32, entries[33][1]
end
