-- The beginning of every script that reads a channel: what is known of it.
-- KEYS: head, log, meta, ...
local head, log, meta = KEYS[1], KEYS[2], KEYS[3]

-- A field of an entry of the log: 'p' is the id before it, 'e' the event, 's' its checksum. An entry
-- that somebody else wrote may lack any of them.
local function field(entry, name)
  local fields = entry[2]
  for at = 1, #fields, 2 do
    if fields[at] == name then return fields[at + 1] end
  end
  return ''
end

local known = redis.call('HMGET', meta, 'last', 'closed', 'opened')
-- The place before the first event of every channel of this shard. Earlier versions had none.
local beginning = redis.call('HGET', head, 'beginning') or '0-0'
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local last, closed = known[1], known[2] or ''
-- The place before the channel's first event.
local opened = known[3] or '0-0'
if not last and oldest then
  -- The hash is lost: the log itself says where it ends.
  last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1]
elseif not last then
  last, opened = beginning, beginning
end
-- The newest event that is no longer kept.
local trimmed_to = last
if oldest then trimmed_to = field(oldest, 'p') end
if trimmed_to == '' then trimmed_to = opened end

-- Where the log begins: for a channel of which all is kept, the place before all events.
local function start()
  if trimmed_to ~= opened then return trimmed_to end
  -- A channel may be older than the beginning that the shard has now; then its own place counts.
  if opened == '0-0' then return opened end
  return beginning
end

-- Adds what Rust reads of an entry to a page.
local function add(page, entry)
  page[#page + 1] = entry[1]
  page[#page + 1] = field(entry, 'p')
  page[#page + 1] = field(entry, 'e')
  page[#page + 1] = field(entry, 's')
end
