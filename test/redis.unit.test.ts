import { describe, expect, it } from 'vitest'
import { asDiskError, ensureError, type DarkroomError } from '../src/errors.ts'
import { bytesIn } from '../src/disk.ts'
import { asRedisError } from '../src/redis.ts'

describe('what Redis refuses for now', () => {
  const refusals = [
    'MISCONF Errors writing to the AOF file: No space left on device',
    "READONLY You can't write against a read only replica.",
    'LOADING Redis is loading the dataset in memory',
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    'NOREPLICAS Not enough good replicas to write.',
    'BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.',
    'CLUSTERDOWN The cluster is down',
    'TRYAGAIN Multiple keys request during rehashing of slot',
    'MOVED 3999 127.0.0.1:6381',
  ]
  it.each(refusals)('is unavailable, with its own remedy: %s', (message) => {
    // As Redis 7 and 6.2 tell it from inside a script, too.
    for (const told of [
      message,
      `${message} script: 0123, on @user_script:4.`,
      `ERR Error running script (call to f_0123): @user_script:4: -${message}`,
    ]) {
      const error = asRedisError(new Error(told))
      expect(error).toMatchObject({ code: 'redis.unavailable', class: 'transient', message: `Redis refuses for now: ${told}` })
      expect((error as DarkroomError).remedy).toMatch(/^.{20,} Then send the same request again with the same Idempotency-Key\.$/)
    }
  })

  it('is nothing of the kind for other errors', () => {
    for (const message of ['BUSYGROUP Consumer Group name already exists', 'WRONGTYPE Operation against a key', 'ERR the ASKED thing']) {
      const error = new Error(message)
      expect(asRedisError(error)).toBe(error)
    }
    expect(asRedisError(new Error("OOM command not allowed when used memory > 'maxmemory'."))).toMatchObject({ code: 'redis.full' })
  })
})

describe('a full disk', () => {
  it.each(['ENOSPC', 'EDQUOT'])('is disk.full, whoever meets it: %s', (code) => {
    const error = Object.assign(new Error(`${code}: no space left on device, write`), { code })
    expect(asDiskError(error, '/data')).toMatchObject({ code: 'disk.full', class: 'resource', message: `/data: ${error.message}` })
    expect(ensureError(error, 'worker.failed').code).toBe('disk.full')
    const named = Object.assign(new Error(`${code}: no space left on device, open '/data/x'`), { code, path: '/data/x' })
    expect(ensureError(named, 'worker.failed').message).toBe(named.message)
  })

  it('is no other error', () => {
    for (const other of [new Error('x'), Object.assign(new Error('x'), { code: 'EACCES' }), undefined, null, 'ENOSPC'])
      expect(asDiskError(other)).toBe(other)
  })

  it('has a floor, in units', () => {
    expect(['0', '17', '2kb', '256mb', '3GB'].map(bytesIn)).toEqual([0, 17, 2048, 256 * 2 ** 20, 3 * 2 ** 30])
  })
})
