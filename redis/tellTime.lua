-- tellTime: the time of one tag (clock.lua).
-- KEYS[1] its clock
-- Returns {'ok', time, wall clock's time}
local now, wall = farmTime(string.sub(KEYS[1], 1, -6))
return { 'ok', now, wall }
