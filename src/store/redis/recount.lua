-- Corrects what was counted of channels. Redis drops events and channels by itself when their time
-- is over, and does not count them out.
-- KEYS: sizes, then for each channel: log, meta    ARGV: the names of the channels
local sizes = KEYS[1]
local total = tonumber(redis.call('HGET', sizes, '') or '0')
for at, name in ipairs(ARGV) do
  local log, meta = KEYS[2 * at], KEYS[2 * at + 1]
  local counted = tonumber(redis.call('HGET', sizes, name))
  local known = redis.call('HMGET', meta, 'bytes', 'state_bytes')
  local has_events = redis.call('EXISTS', log) == 1
  if counted and not known[2] and not has_events then
    redis.call('HDEL', sizes, name)
    total = total - counted
  elseif counted and known[2] then
    local size = tonumber(known[2])
    if has_events then size = size + tonumber(known[1] or '0') end
    if size ~= counted then redis.call('HSET', sizes, name, string.format('%.0f', size)) end
    total = total + size - counted
  end
end
redis.call('HSET', sizes, '', string.format('%.0f', total))
