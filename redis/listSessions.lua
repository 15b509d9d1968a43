-- listSessions: sessions that stand in all of some indexes, newest first. It walks the smallest index and asks the
--   others for each entry; where nothing of a whole stretch is in all of them, it goes on where the others do. Of two
--   large indexes that share little it looks at so many entries and no more: the caller goes on from there, or leaves
--   it.
-- KEYS[1] an index
-- ARGV[1] score, ARGV[2] id of the entry to go on after ('+inf' and '' from the newest on)   ARGV[3] sessions at most
-- ARGV[4] entries looked at, about at most   ARGV further: the other indexes
-- Returns {'all' | 'more', score, id of the last entry looked at, then the ids that were found}
local from, after, wanted, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local walked, size, others = KEYS[1], redis.call('ZCARD', KEYS[1]), {}
for i = 5, #ARGV do
  local count = redis.call('ZCARD', ARGV[i])
  if count < size then
    others[#others + 1] = walked
    walked, size = ARGV[i], count
  else
    others[#others + 1] = ARGV[i]
  end
end

local at = 0
if after ~= '' then
  local rank = redis.call('ZREVRANK', walked, after)
  at = rank and rank + 1 or redis.call('ZCOUNT', walked, '(' .. from, '+inf')
end
local found, looked, score, id = {}, 0, from, after
local function answer(is) return { is, score, id, unpack(found) } end
local function isInAll(member)
  for _, other in ipairs(others) do
    if not redis.call('ZSCORE', other, member) then return false end
  end
  return true
end
local stretch = math.min(200, math.max(50, wanted))
while true do
  local entries = redis.call('ZREVRANGE', walked, at, at + stretch - 1, 'WITHSCORES')
  if not entries[1] then return answer('all') end
  local before = #found
  for i = 1, #entries, 2 do
    -- An entry that is gone since is found by its score alone, and those before it of the same moment are skipped.
    if after == '' or entries[i + 1] ~= from or entries[i] < after then
      id, score, looked = entries[i], entries[i + 1], looked + 1
      if isInAll(id) then
        found[#found + 1] = id
        if #found == wanted then return answer('more') end
      end
    end
  end
  if looked >= most then return answer('more') end
  at = at + #entries / 2
  if #found == before then
    for _, other in ipairs(others) do
      local next = redis.call('ZREVRANGEBYSCORE', other, score, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
      if not next[1] then return answer('all') end
      at = math.max(at, redis.call('ZCOUNT', walked, '(' .. next[2], '+inf'))
    end
  end
end
