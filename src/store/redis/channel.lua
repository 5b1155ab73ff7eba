-- The beginning of every script that reads a channel: the properties of the channel.
-- KEYS: head, log, meta, ...
local head, log, meta = KEYS[1], KEYS[2], KEYS[3]

-- Returns a field of a log entry: 'p' is the id of the entry before it, 'e' the event, 's' its
-- checksum. Entries that another program wrote may lack any of them.
local function field(entry, name)
  local fields = entry[2]
  for at = 1, #fields, 2 do
    if fields[at] == name then return fields[at + 1] end
  end
  return ''
end

local known = redis.call('HMGET', meta, 'last', 'closed', 'opened', 'bytes', 'state_bytes')
local shard = redis.call('HMGET', head, 'last', 'bytes', 'newest', 'shards', 'beginning')
-- The position before the first event of every channel of this shard. Earlier versions did not
-- store it.
local beginning = shard[5] or '0-0'
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local last, closed = known[1], known[2] or ''
-- The position before the first event of the channel.
local opened = known[3] or '0-0'
if not last and oldest then
  -- The hash is lost, so the log itself shows where it ends.
  last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1]
elseif not last then
  last, opened = beginning, beginning
end
-- The low watermark: the id of the newest event that is no longer kept.
local trimmed_to = last
if oldest then trimmed_to = field(oldest, 'p') end
if trimmed_to == '' then trimmed_to = opened end

-- Returns the position at which the log begins. If all events of the channel are kept, this is the
-- position before all events of the shard.
local function start()
  if trimmed_to ~= opened then return trimmed_to end
  -- A channel may be older than the current beginning of the shard. Then its own first position
  -- counts.
  if opened == '0-0' then return opened end
  return beginning
end

-- Adds the fields of an entry to a page, in the order in which Rust reads them.
local function add(page, entry)
  page[#page + 1] = entry[1]
  page[#page + 1] = field(entry, 'p')
  page[#page + 1] = field(entry, 'e')
  page[#page + 1] = field(entry, 's')
end
