-- The last place in a channel before an instant; of an ended channel one before its end at the
-- latest, so that a client that begins there is sent the end.
-- KEYS: head, log, meta    ARGV: instant (ms)
local bound = ARGV[1] .. '-0'
if closed ~= '' and tonumber(string.match(closed, '^%d+')) < tonumber(ARGV[1]) then bound = closed end
-- Nothing lies before the smallest id, and Redis refuses to look there.
if bound ~= '0-0' then
  local entry = redis.call('XREVRANGE', log, '(' .. bound, '-', 'COUNT', 1)[1]
  if entry then return entry[1] end
end
if oldest then return start() end
return last
