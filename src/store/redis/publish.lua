-- Publishes events, or ends a channel. The script checks the publish first, and then stores it,
-- remembers its idempotency key and adds it to the firehose, in one atomic step.
-- KEYS: head, log, meta, state, firehose, idempotency
-- ARGV: name, deadline (ms), retain events, age (ms) and bytes, keys max, state bytes max,
--       idle (ms), firehose events and bytes max, digest ('' = none), its ttl (ms), '1' to end
--       the channel, number of shards; then for each event: key, '1' to remove the key, record,
--       checksum of the record
local state, firehose, idempotency = KEYS[4], KEYS[5], KEYS[6]
local name, deadline = ARGV[1], tonumber(ARGV[2])
local retain_events, retain_age, retain_bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local keys_max, state_max, idle = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local firehose_max, firehose_bytes_max = tonumber(ARGV[9]), tonumber(ARGV[10])
local digest, ttl, ends, shards = ARGV[11], ARGV[12], ARGV[13] == '1', ARGV[14]
local FIRST, FIELDS = 15, 4

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
redis.call('XLEN', firehose)
local shard = redis.call('HMGET', head, 'last', 'bytes', 'newest', 'shards', 'beginning')
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
local sizes = redis.call('HMGET', meta, 'bytes', 'state_bytes')

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
local keys, state_bytes = redis.call('HLEN', state), tonumber(sizes[2] or '0')
local keys_before, bytes_before = keys, state_bytes
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

-- All checks are done, and the publish is not refused after this point.
local first = text(ms) .. '-' .. text(seq)
local bytes, blob, link = tonumber(sizes[1] or '0'), {}, previous
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
local length = redis.call('XLEN', log)
redis.call('XTRIM', log, 'MAXLEN', '~', retain_events)
redis.call('XTRIM', log, 'MINID', '~', text(math.max(now - retain_age, 0)))
if bytes > retain_bytes then
  redis.call('XTRIM', log, 'MAXLEN', '~', math.floor(length * retain_bytes / bytes))
end
bytes = math.floor(bytes * redis.call('XLEN', log) / length)

redis.call('HSET', meta, 'last', last, 'bytes', text(bytes), 'state_bytes', text(state_bytes))
if is_new then redis.call('HSET', meta, 'opened', previous) end
if ends then redis.call('HSET', meta, 'closed', last) end
redis.call('PEXPIRE', log, ARGV[4])
if keys > 0 then redis.call('PERSIST', meta) else redis.call('PEXPIRE', meta, idle) end

blob = table.concat(blob)
local entry = redis.call('XADD', firehose, '*', 'q', shard[1] or '0-0', 'c', name, 'p', follows,
  'i', first, 'b', blob)
local total = tonumber(shard[2] or '0') + #blob
length = redis.call('XLEN', firehose)
redis.call('XTRIM', firehose, 'MAXLEN', '~', firehose_max)
if total > firehose_bytes_max then
  redis.call('XTRIM', firehose, 'MAXLEN', '~', math.floor(length * firehose_bytes_max / total))
end
total = math.floor(total * redis.call('XLEN', firehose) / length)
local latest = last
if shard[3] and is_later(shard[3], latest) then latest = shard[3] end
redis.call('HSET', head, 'last', entry, 'bytes', text(total), 'newest', latest, 'shards', shards,
  'beginning', shard[5])

local count = text((#ARGV - FIRST + 1) / FIELDS)
if digest ~= '' then
  redis.call('SET', idempotency, digest .. ' ' .. first .. ' ' .. count .. ' ' .. entry, 'PX', ttl)
end
return {'stored', first, count, entry}
