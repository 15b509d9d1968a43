-- reserveDevice: reserves a slot, memory and a model of one device for one owner, all or nothing. Of those that wait,
--   the one of higher priority goes first, of equals the one that came first; what is reserved is never taken away
--   before its time. A model that several reserve counts once. What has outlived its time counts as free.
-- KEYS[1] reservations of the device: owner → {worker, slots, bytes, model, modelBytes, priority, until, since, waits}
-- ARGV[1] owner   ARGV[2] slots   ARGV[3] bytes   ARGV[4] model ('' for none)   ARGV[5] bytes of the model
-- ARGV[6] priority, higher first
-- ARGV[7] worker   ARGV[8] slots there are   ARGV[9] bytes there are ('' when unknown)   ARGV[10] time to live, ms
-- ARGV[11] how long its place among those that wait is kept, ms
-- Returns {'reserved', until} | {'waits', slots free, bytes free, how many go first} | {'exhausted', slots free, bytes
--   free}: more than there is
local all, owner = KEYS[1], ARGV[1]
local now = farmTime(string.match(all, '^.-}:'))
local slotsThere, bytesThere = tonumber(ARGV[8]), tonumber(ARGV[9]) or math.huge
local need = { worker = ARGV[7], slots = tonumber(ARGV[2]), bytes = tonumber(ARGV[3]), model = ARGV[4], modelBytes = tonumber(ARGV[5]), priority = tonumber(ARGV[6]) }

local held, line, mine = {}, {}, nil
local known = redis.call('HGETALL', all)
-- A full Redis takes what follows after a write that needs no memory.
redis.call('HDEL', all, owner)
for i = 1, #known, 2 do
  local entry = cjson.decode(known[i + 1])
  entry.owner = known[i]
  if entry['until'] <= now then
    redis.call('HDEL', all, entry.owner)
  elseif entry.owner == owner then
    mine = entry
  else
    table.insert(entry.waits and line or held, entry)
  end
end

local function sum(entries)
  local slots, bytes, models = 0, 0, {}
  for _, entry in ipairs(entries) do
    slots, bytes = slots + entry.slots, bytes + entry.bytes
    if entry.model ~= '' then models[entry.model] = math.max(models[entry.model] or 0, entry.modelBytes) end
  end
  for _, size in pairs(models) do bytes = bytes + size end
  return slots, bytes
end
-- Whether `need` fits beside them. Of what it takes nothing of, others may wait for more than there is.
local function fits(entries)
  local slots, bytes = sum(entries)
  table.insert(entries, need)
  local slotsThen, bytesThen = sum(entries)
  return (slotsThen == slots or slotsThen <= slotsThere) and (bytesThen == bytes or bytesThen <= bytesThere)
end
local function keep(waits, ms)
  need.since, need.waits, need['until'] = mine and mine.since or now, waits, now + ms
  redis.call('HSET', all, owner, cjson.encode(need))
  redis.call('EXPIRE', all, 86400) -- of a device that is gone for good
  return now + ms
end

local slots, bytes = sum(held)
local slotsFree, bytesFree = slotsThere - slots, bytesThere == math.huge and '' or math.floor(bytesThere - bytes)
if mine and not mine.waits then return { 'reserved', keep(false, tonumber(ARGV[10])) } end
if not fits({}) then return { 'exhausted', slotsFree, bytesFree } end
local since, first = mine and mine.since or now, 0
for _, entry in ipairs(line) do
  local isEqual = entry.priority == need.priority
  if entry.priority > need.priority or (isEqual and (entry.since < since or (entry.since == since and entry.owner < owner))) then
    first = first + 1
    table.insert(held, entry)
  end
end
if fits(held) then return { 'reserved', keep(false, tonumber(ARGV[10])) } end
keep(true, tonumber(ARGV[11]))
return { 'waits', slotsFree, bytesFree, first }
