-- Clock: the time by which durations are reckoned. TIME is the wall clock of a machine, and somebody may set it; this
-- time only goes forward, about as fast as real time does. The loader puts it in front of every script that asks for
-- it.
--
-- `<tag>clock` = `offset last`: what to add to TIME, and the time as `keepClock` wrote it last, a moment ago. Between
-- two of its writes no script leaves the half second after `last`, wherever the wall clock was set meanwhile; its next
-- write takes what the wall clock was set by into the offset. Without a keeper there is no such key, and the time is
-- TIME.
--
-- Returns the time and the wall clock's, ms. What is shown to people is the wall clock's.
local function farmTime(tag)
  local time = redis.call('TIME')
  local wall = time[1] * 1000 + math.floor(time[2] / 1000)
  local clock = redis.call('GET', tag .. 'clock')
  if not clock then return wall, wall end
  local offset, last = string.match(clock, '^(%S+) (%S+)$')
  return math.max(last, math.min(wall + offset, last + 500)), wall
end
