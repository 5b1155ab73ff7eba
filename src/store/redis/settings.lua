-- The settings in which all origins of a deployment agree.
-- KEYS: settings, shards    ARGV: '1' to write one's own over those of others, number of shards, then
--                                 name and value of each
-- Returns '1' when some were missing and are written now, then name and value of each that differs.
local others = {''}
if redis.call('EXISTS', KEYS[2]) == 0 then redis.pcall('SET', KEYS[2], ARGV[2], 'NX') end
local names = {}
for at = 3, #ARGV, 2 do names[#names + 1] = ARGV[at] end
if #names == 0 then return others end
local stored = redis.call('HMGET', KEYS[1], unpack(names))
for at = 3, #ARGV, 2 do
  local known = stored[(at - 1) / 2]
  local differs = known and known ~= ARGV[at + 1]
  if differs then
    others[#others + 1] = ARGV[at]
    others[#others + 1] = known
  end
  if not known then others[1] = '1' end
  if not known or differs and ARGV[1] == '1' then
    -- A replica refuses; its master is asked again later.
    redis.pcall('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
return others
