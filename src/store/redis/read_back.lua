-- Returns a page of a channel's log before a position, newest first, limited in events and bytes.
-- KEYS: head, log, meta    ARGV: position, events max, bytes max
-- Returns beginning, opened, low watermark, last id, the id of the `end` event ('' = open), '1' if
-- there are no further events, the id before the entry that follows the page, then for each event:
-- its id, the id before it, record and checksum.
local events_max, bytes_max = tonumber(ARGV[2]), tonumber(ARGV[3])
local before, events, bytes = ARGV[1], 0, 0
local following = redis.call('XRANGE', log, before, '+', 'COUNT', 1)[1]
local page = {beginning, opened, trimmed_to, last, closed, '1', following and field(following, 'p') or last}
-- There is nothing before the smallest id, and Redis refuses to read there.
while before ~= '0-0' do
  local entries = redis.call('XREVRANGE', log, '(' .. before, '-', 'COUNT', 32)
  if #entries == 0 then return page end
  for _, entry in ipairs(entries) do
    bytes = bytes + #field(entry, 'e')
    if events > 0 and (events == events_max or bytes > bytes_max) then
      page[6] = ''
      return page
    end
    add(page, entry)
    events = events + 1
    before = entry[1]
  end
end
return page
