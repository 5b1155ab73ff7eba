-- A page of a channel's log before a place, newest first, bounded in events and in bytes.
-- KEYS: log, meta    ARGV: place, events max, bytes max
-- Returns the same as read.lua does.
local log, meta = unpack(KEYS)
local events_max, bytes_max = tonumber(ARGV[2]), tonumber(ARGV[3])
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local known = redis.call('HMGET', meta, 'last', 'closed')
local page = {known[1] or '0-0', known[2] or '', oldest and oldest[2][2] or '', '1'}
local before, events, bytes = ARGV[1], 0, 0
-- Nothing lies before the smallest id, and Redis refuses to look there.
while before ~= '0-0' do
  local entries = redis.call('XREVRANGE', log, '(' .. before, '-', 'COUNT', 32)
  if #entries == 0 then return page end
  for _, entry in ipairs(entries) do
    local record = entry[2][4]
    bytes = bytes + #record
    if events > 0 and (events == events_max or bytes > bytes_max) then
      page[4] = ''
      return page
    end
    page[#page + 1] = entry[1]
    page[#page + 1] = record
    events = events + 1
    before = entry[1]
  end
end
return page
