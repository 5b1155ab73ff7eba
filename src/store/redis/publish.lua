-- Publishes events, or ends a channel. The script checks the publish first, and then stores it,
-- remembers its idempotency key and adds it to the firehose, in one atomic step. channel.lua, which
-- precedes it, reads the state of the channel into variables.
-- KEYS: head, log, meta, state, firehose, idempotency, sizes, key counts
-- ARGV: name, deadline (ms), retain events, age (ms) and bytes, keys max, state bytes max,
--       idle (ms), firehose events and bytes max, digest ('' = none), its ttl (ms), '1' to end
--       the channel, number of shards, then what this shard may have of the limits of the whole
--       store: channels max, bytes max, idempotency keys max ('' = the key is not counted); then
--       for each event: key, '1' to remove the key, record, checksum of the record
-- Returns 'stored', the first id, the number of events, the entry of the firehose, then the number
-- of channels in the shard, their bytes, and the number of idempotency keys; '' for a number that
-- has not changed.
local state, firehose, idempotency, sizes, key_counts = KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local name, deadline = ARGV[1], tonumber(ARGV[2])
local retain_events, retain_age, retain_bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local keys_max, state_max, idle = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local firehose_max, firehose_bytes_max = tonumber(ARGV[9]), tonumber(ARGV[10])
local digest, ttl, ends, shards = ARGV[11], ARGV[12], ARGV[13] == '1', ARGV[14]
local channels_max, total_max, once_max = tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
local FIRST, FIELDS = 18, 4
local events = (#ARGV - FIRST + 1) / FIELDS

local function text(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- The publisher has already received a refusal, which must stay true.
if now > deadline then return {'late', text(now)} end

if digest ~= '' then
  local first = redis.call('GET', idempotency)
  if first then
    local known, id, count, entry = string.match(first, '^(%x+) (%S+) (%d+) (%S+)$')
    if known ~= digest then return {'reused'} end
    return {'repeated', id, count, entry}
  end
end

-- Each key that is written is read first. A key of the wrong type then fails here, before anything
-- is stored.
local entries = redis.call('XLEN', firehose)
if shard[4] and shard[4] ~= shards then return {'shards', shard[4]} end
if closed ~= '' then return {'closed', closed} end
local is_new = not known[1] and not oldest
if ends and is_new then return {'unknown'} end
if not shard[5] then
  -- The beginning is chosen as in head.lua.
  shard[5] = shard[1] and '0-0' or text(now) .. '-0'
  beginning = shard[5]
end

local function is_later(one, other)
  local ms, seq = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
  return tonumber(seq) > tonumber(other_seq)
end
-- Readers of a channel without events are at the beginning. In the log of a new channel, the first
-- event follows the newest event of the whole shard. A cursor from before the channel was forgotten
-- therefore receives a gap event, because it may have missed something.
local previous, follows = last, last
if is_new then
  previous, follows = beginning, beginning
  if shard[3] and is_later(shard[3], previous) then previous = shard[3] end
end
-- When the whole log has expired, the number of its bytes is still there.
local bytes, length = oldest and tonumber(known[4] or '0') or 0, redis.call('XLEN', log)
local keys, state_bytes = redis.call('HLEN', state), tonumber(known[5] or '0')
local keys_before, bytes_before, size_before = keys, state_bytes, bytes + state_bytes

-- What is counted against the limits of the whole store: the bytes of all channels of the shard,
-- under the name '', which no channel has, and the bytes of this channel.
local counted = redis.call('HMGET', sizes, '', name)
local total, counted_before = tonumber(counted[1] or '0'), tonumber(counted[2] or '0')
local channels
if not counted[2] then
  channels = math.max(redis.call('HLEN', sizes), 1)
  -- A channel that is not new was made by an earlier version, which did not count.
  if is_new and channels > channels_max then return {'channels'} end
end

-- Idempotency keys are counted by the time at which they expire, rounded up to a sixtieth of the
-- time for which they are kept. counts.lua removes those that have expired.
local key_count, expiry, same_expiry
if once_max then
  local step = math.ceil(ttl / 60)
  expiry = text(math.ceil((now + ttl) / step) * step)
  local known_keys = redis.call('HMGET', key_counts, 'total', expiry)
  key_count, same_expiry = (known_keys[1] or 0) + 1, (known_keys[2] or 0) + 1
  if key_count > once_max then return {'once'} end
end

-- The effect of the publish on the state: only the last event of each key counts.
local newest, order = {}, {}
for at = FIRST, #ARGV, FIELDS do
  local key = ARGV[at]
  if key ~= '' then
    if not newest[key] then order[#order + 1] = key end
    newest[key] = at
  end
end
local ms, seq = string.match(previous, '^(%d+)-(%d+)$')
ms, seq = tonumber(ms), tonumber(seq) + 1
if now > ms then ms, seq = now, 0 end
for _, key in ipairs(order) do
  local at = newest[key]
  local before = redis.call('HSTRLEN', state, key)
  if before > 0 then keys, state_bytes = keys - 1, state_bytes - before end
  if ARGV[at + 1] ~= '1' then
    local id = text(ms) .. '-' .. text(seq + (at - FIRST) / FIELDS)
    keys, state_bytes = keys + 1, state_bytes + #id + 1 + #ARGV[at + 2]
  end
end
if keys > keys_before and keys > keys_max then return {'keys'} end
if state_bytes > bytes_before and state_bytes > state_max then return {'state'} end
local added = 0
for at = FIRST, #ARGV, FIELDS do added = added + #ARGV[at + 2] end
-- Older events of the channel make room for newer ones.
local size = bytes + added
if length + events > retain_events then size = size * retain_events / (length + events) end
size = math.min(size, math.max(retain_bytes, added)) + state_bytes
if size > size_before and total - counted_before + size > total_max then return {'total'} end

-- All checks are done, and the publish is not refused after this point.
local first = text(ms) .. '-' .. text(seq)
local blob, link = {}, previous
for at = FIRST, #ARGV, FIELDS do
  local record = ARGV[at + 2]
  last = text(ms) .. '-' .. text(seq + (at - FIRST) / FIELDS)
  -- Every entry contains the id of the entry before it, so a missing entry is detected.
  redis.call('XADD', log, last, 'p', link, 'e', record, 's', ARGV[at + 3])
  link = last
  bytes = bytes + #record
  blob[#blob + 1] = struct.pack('>I4', #record) .. record
  if newest[ARGV[at]] == at then
    if ARGV[at + 1] == '1' then
      redis.call('HDEL', state, ARGV[at])
    else
      redis.call('HSET', state, ARGV[at], last .. ' ' .. record)
    end
  end
end

-- Trimming by count and age removes whole nodes, which is cheap in Redis. Trimming by bytes uses
-- the average size of an entry.
length = length + events
local kept = length - redis.call('XTRIM', log, 'MAXLEN', '~', retain_events)
kept = kept - redis.call('XTRIM', log, 'MINID', '~', text(math.max(now - retain_age, 0)))
if bytes > retain_bytes then
  -- The newest event stays, even if its record is larger than the limit.
  local most = math.max(math.floor(length * retain_bytes / bytes), 1)
  kept = kept - redis.call('XTRIM', log, 'MAXLEN', '~', most)
end
bytes = math.floor(bytes * kept / length)

redis.call('HSET', meta, 'last', last, 'bytes', text(bytes), 'state_bytes', text(state_bytes))
if is_new then redis.call('HSET', meta, 'opened', previous) end
if ends then redis.call('HSET', meta, 'closed', last) end
redis.call('PEXPIRE', log, ARGV[4])
if keys > 0 then redis.call('PERSIST', meta) else redis.call('PEXPIRE', meta, idle) end

blob = table.concat(blob)
local entry = redis.call('XADD', firehose, '*', 'q', shard[1] or '0-0', 'c', name, 'p', follows,
  'i', first, 'b', blob)
local firehose_bytes = tonumber(shard[2] or '0') + #blob
entries = entries + 1
kept = entries - redis.call('XTRIM', firehose, 'MAXLEN', '~', firehose_max)
if firehose_bytes > firehose_bytes_max then
  local most = math.floor(entries * firehose_bytes_max / firehose_bytes)
  kept = kept - redis.call('XTRIM', firehose, 'MAXLEN', '~', most)
end
firehose_bytes = math.floor(firehose_bytes * kept / entries)
local latest = last
if shard[3] and is_later(shard[3], latest) then latest = shard[3] end
redis.call('HSET', head, 'last', entry, 'bytes', text(firehose_bytes), 'newest', latest, 'shards', shards,
  'beginning', shard[5])

-- A smaller change of the channel's bytes is counted with a later one, because a write for each
-- publish would cost more than all other counting.
size = bytes + state_bytes
local is_counted = counted[2] and math.abs(size - counted_before) * 16 <= counted_before
if not is_counted then
  total = text(total - counted_before + size)
  redis.call('HSET', sizes, '', total, name, text(size))
end
local count = text(events)
if digest ~= '' then
  redis.call('SET', idempotency, digest .. ' ' .. first .. ' ' .. count .. ' ' .. entry, 'PX', ttl)
end
if once_max then
  key_count = text(key_count)
  redis.call('HSET', key_counts, 'total', key_count, expiry, text(same_expiry))
end
return {'stored', first, count, entry, channels or '', is_counted and '' or total, key_count or ''}
