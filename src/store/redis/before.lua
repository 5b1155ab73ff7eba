-- The last place in a channel before an instant; of an ended channel one before its end at the
-- latest, so that whoever begins there hears of the end.
-- KEYS: log, meta    ARGV: instant (ms)
local log, meta = unpack(KEYS)
local known = redis.call('HMGET', meta, 'last', 'closed')
local bound = ARGV[1] .. '-0'
if known[2] and tonumber(string.match(known[2], '^%d+')) < tonumber(ARGV[1]) then bound = known[2] end
-- Nothing lies before the smallest id, and Redis refuses to look there.
if bound ~= '0-0' then
  local entry = redis.call('XREVRANGE', log, '(' .. bound, '-', 'COUNT', 1)[1]
  if entry then return entry[1] end
end
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
if oldest then return oldest[2][2] end
return known[1] or '0-0'
