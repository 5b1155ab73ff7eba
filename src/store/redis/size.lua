-- Returns how much is kept of a channel.
-- KEYS: log, meta, state
-- Returns the number of events, their bytes, the number of keys, and the bytes of the state.
local sizes = redis.call('HMGET', KEYS[2], 'bytes', 'state_bytes')
local events, keys = redis.call('XLEN', KEYS[1]), redis.call('HLEN', KEYS[3])
-- When the whole log has expired, the number of its bytes is still there.
local bytes = events > 0 and sizes[1] or '0'
return {tostring(events), bytes, tostring(keys), sizes[2] or '0'}
