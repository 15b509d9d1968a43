-- noteAudit: writes down a change that an operator has made; the oldest entries go. The trim comes first: a full Redis
--   refuses a script whose first write needs memory, and what an operator does against that is to be noted, too.
-- KEYS[1] the list, newest first
-- ARGV[1] entry, JSON   ARGV[2] how many are kept
-- Returns {'ok'}
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[2]) - 2)
redis.call('LPUSH', KEYS[1], ARGV[1])
return { 'ok' }
