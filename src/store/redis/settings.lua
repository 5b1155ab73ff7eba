-- Compares and stores the settings that must be the same for all origins of a deployment.
-- KEYS: settings, shards
-- ARGV: '1' to overwrite the settings of other origins, number of shards, then each name and value
-- Returns '1' if settings were missing (this script has stored them), then the name and the stored
-- value of each setting that differs.
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
    -- A replica refuses this write. The master gets the same request later.
    redis.pcall('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
return others
