-- keepClock: writes the time of one tag (clock.lua) on, a few times a second, and takes what the wall clock was set by
--   into its offset. Set back it shows by itself: the time would be less than it was. Set forward it shows only to who
--   knows how long it took: a process that has asked before, by its own monotonic clock.
-- KEYS[1] clock
-- ARGV[1] the time as this process was told it last ('' never)   ARGV[2] ms since it asked then, by its own clock
-- ARGV[3] of a time that had leapt: '' not asked yet; else the `last` that came with it. Asked again at once by a
--   process that was told before: Redis itself may have been slow. Asked again after a second by one that was not: if
--   the clock has stood still so long, nobody kept it, and time has passed.
-- Returns {'ok', time} | {'leapt', last}: nothing is written; ask again
local key, told, passed, again = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local offset, last = 0, nil
local clock = redis.call('GET', key)
if clock then
  offset, last = string.match(clock, '^(%S+) (%S+)$')
  offset, last = tonumber(offset), tonumber(last)
  now = now + offset
  local fits = math.max(last, told and told + passed or now)
  if now < last then
    offset, now = offset + last - now, last
  elseif told and now > fits + 1000 then
    if again == '' then return { 'leapt', last } end
    offset, now = offset + fits - now, fits
  elseif not told and now > last + 1000 and tonumber(again) ~= last then
    return { 'leapt', last }
  end
  -- Several processes keep it.
  if clock == offset .. ' ' .. last and now - last < 200 then return { 'ok', now } end
end
-- A full Redis takes what follows after a write that needs no memory.
redis.call('DEL', key)
redis.call('SET', key, offset .. ' ' .. now)
return { 'ok', now }
