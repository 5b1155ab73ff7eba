-- A page of a channel's log after a place, bounded in events and in bytes.
-- KEYS: log, meta    ARGV: position, events max, bytes max
-- Returns last, the end's id ('' = open), what came before the oldest event ('' = none is kept), '1'
-- when this was all, then id and record of each event.
local log, meta = unpack(KEYS)
local events_max, bytes_max = tonumber(ARGV[2]), tonumber(ARGV[3])
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local known = redis.call('HMGET', meta, 'last', 'closed')
local page = {known[1] or '0-0', known[2] or '', oldest and oldest[2][2] or '', '1'}
local position, events, bytes = ARGV[1], 0, 0
while true do
  local entries = redis.call('XRANGE', log, '(' .. position, '+', 'COUNT', 32)
  if #entries == 0 then return page end
  for _, entry in ipairs(entries) do
    local record = entry[2][4]
    bytes = bytes + #record
    if events > 0 and (events == events_max or bytes > bytes_max) or events_max == 0 then
      page[4] = ''
      return page
    end
    page[#page + 1] = entry[1]
    page[#page + 1] = record
    events = events + 1
    position = entry[1]
  end
end
