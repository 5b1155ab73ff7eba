-- Returns a page of a channel's log after a position, limited in events and in bytes.
-- KEYS: head, log, meta    ARGV: position, events max, bytes max
-- Returns beginning, opened, low watermark, last id, the id of the `end` event ('' = open), '1' if
-- there are no further events, then for each event: its id, the id before it, record and checksum.
local events_max, bytes_max = tonumber(ARGV[2]), tonumber(ARGV[3])
local page = {beginning, opened, trimmed_to, last, closed, '1'}
local position, events, bytes = ARGV[1], 0, 0
while true do
  local entries = redis.call('XRANGE', log, '(' .. position, '+', 'COUNT', 32)
  if #entries == 0 then return page end
  for _, entry in ipairs(entries) do
    bytes = bytes + #field(entry, 'e')
    if events > 0 and (events == events_max or bytes > bytes_max) or events_max == 0 then
      page[6] = ''
      return page
    end
    add(page, entry)
    events = events + 1
    position = entry[1]
  end
end
