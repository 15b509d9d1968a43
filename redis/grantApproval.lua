-- grantApproval: lets whoever has a token send one signal to a session.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] SHA-256 of the token   ARGV[2] the signals that it is for, JSON   ARGV[3] how long it counts, ms
--   ARGV[4] how many a session may have
-- Returns {'ok', when it ends} | {'missing'} | {'ended', status} | {'full'}
local session = redis.call('HMGET', S, 'status', 'approvals')
local status = session[1]
if not status then return { 'missing' } end
if status == 'succeeded' or status == 'failed' or status == 'cancelled' then return { 'ended', status } end
if tonumber(session[2] or '0') >= tonumber(ARGV[4]) then return { 'full' } end
redis.call('HINCRBY', S, 'approvals', 1)
redis.call('HSET', S, 'approval:' .. ARGV[1], '{"until":' .. (now + ARGV[3]) .. ',"signals":' .. ARGV[2] .. '}')
return { 'ok', wall + ARGV[3] }
