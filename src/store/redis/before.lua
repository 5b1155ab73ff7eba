-- Returns the last position in a channel before an instant. In an ended channel this position is
-- always before the `end` event, so that a client that begins there receives that event.
-- KEYS: head, log, meta    ARGV: instant (ms)
local bound = ARGV[1] .. '-0'
if closed ~= '' and tonumber(string.match(closed, '^%d+')) < tonumber(ARGV[1]) then bound = closed end
-- There is nothing before the smallest id, and Redis refuses to read there.
if bound ~= '0-0' then
  local entry = redis.call('XREVRANGE', log, '(' .. bound, '-', 'COUNT', 1)[1]
  if entry then return entry[1] end
end
if oldest then return start() end
return last
