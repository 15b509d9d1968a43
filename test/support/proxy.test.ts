/** The line breaks where the rules say, and nowhere else; or `test/long/line.test.ts` would show nothing. */
import { afterEach, beforeEach, expect, it } from 'vitest'
import { newSessionId } from '../../src/keys.ts'
import { connect, untilReady, type Redis } from '../../src/redis.ts'
import { chance, messageEnd, sometimes, startProxy, Walk, type FaultProxy, type Rule } from './proxy.ts'
import { startTestRedis, type TestRedis } from './redis.ts'

let redis: TestRedis
let proxy: FaultProxy
let client: Redis
let eye: Redis
beforeEach(async () => {
  redis = await startTestRedis()
  proxy = await startProxy(redis.url)
  client = connect(proxy.url, { patience: 'fail' })
  eye = connect(redis.url, { patience: 'fail' })
  await Promise.all([untilReady(client, 5000), untilReady(eye, 5000)])
})
afterEach(async () => {
  client.disconnect()
  eye.disconnect()
  await proxy.close()
  await redis.stop()
})

const broken = /Reached the max retries|aborted due to connection close/

/** At the n-th command of this name. */
function at(n: number, name: string, fault: ReturnType<Rule>): Rule {
  let count = 0
  return (command) => (command.name === name && ++count === n ? fault : undefined)
}

it('a cut comes between two commands: the one before has its answer, the one after is not executed', async () => {
  proxy.rule = at(2, 'INCR', 'cut')
  const asked = performance.now()
  const [first, second] = await Promise.allSettled([client.incr('n'), client.incr('n')])
  // Somebody waits at a door: the answer is not the timeout's.
  expect(performance.now() - asked).toBeLessThan(2000)
  expect(first).toEqual({ status: 'fulfilled', value: 1 })
  expect(second.status).toBe('rejected')
  expect(await eye.get('n')).toBe('1')
  expect(proxy.injected.map(({ kind, command }) => [kind, command])).toEqual([['cut', 'INCR']])
  await untilReady(client, 5000)
  expect(await client.incr('n')).toBe(2)
})

it('a lost answer is one of a command that was executed, and nothing after it is', async () => {
  proxy.rule = at(2, 'INCR', 'lose')
  const outcomes = await Promise.allSettled([client.incr('n'), client.incr('n'), client.incr('n')])
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected'])
  expect(await eye.get('n')).toBe('2')
})

it('a dropped command is not executed; a delayed one is, later', async () => {
  proxy.rule = at(1, 'INCR', 'drop')
  await expect(client.incr('n')).rejects.toThrow(broken)
  expect(await eye.get('n')).toBe(null)
  await untilReady(client, 5000)
  proxy.rule = at(1, 'INCR', 200)
  const asked = performance.now()
  expect(await client.incr('n')).toBe(1)
  expect(performance.now() - asked).toBeGreaterThan(190)
})

it('a transaction is one write: its EXEC; cut inside, none of it is executed', async () => {
  const seen: [string, boolean][] = []
  proxy.rule = (command) => {
    seen.push([command.name, command.isWrite])
    return undefined
  }
  await client.multi().incr('n').incr('n').exec()
  expect(seen).toEqual([
    ['MULTI', false],
    ['INCR', false],
    ['INCR', false],
    ['EXEC', true],
  ])
  proxy.rule = at(2, 'INCR', 'cut')
  await expect(client.multi().incr('n').incr('n').exec()).rejects.toThrow(broken)
  expect(await eye.get('n')).toBe('2')
})

it('messages of a subscription are not taken for answers', async () => {
  const heard: string[] = []
  client.on('message', (_channel: string, message: string) => heard.push(message))
  await client.subscribe('channel')
  proxy.rule = at(1, 'INCR', 'lose')
  await Promise.all(Array.from({ length: 20 }, (_, i) => eye.publish('channel', String(i))))
  await expect(client.incr('n')).rejects.toThrow(broken)
  expect(await eye.get('n')).toBe('1')
  expect(heard).toHaveLength(20)
})

it('counts what hit live work, and calls a run void in which too little did', async () => {
  proxy.rule = sometimes(chance(1), 1, 1)
  await client.incr('n')
  expect(proxy.hits()).toBe(0)
  expect(() => proxy.atLeast(1)).toThrow('void')
  await client.incr(`darkroom:{s0}:session:${newSessionId(0, Date.now())}`)
  expect(proxy.hits('delay')).toBe(1)
  proxy.atLeast(1)
  expect(() => proxy.atLeast(1, 'cut')).toThrow('void')
})

it('the same seed breaks at the same places of a sequence', async () => {
  const command = { name: 'INCR', isWrite: true, sessions: [], isLook: false }
  const places = (seed: number): unknown[] => {
    const rule = sometimes(chance(seed), 0.05, 'lose')
    return Array.from({ length: 200 }, () => rule(command))
  }
  expect(places(5)).toEqual(places(5))
  expect(places(5)).not.toEqual(places(6))
  expect(places(5).filter(Boolean).length).toBeGreaterThan(3)
})

it('a walk gives each session one place, and keeps those that were not reached', () => {
  const walk = new Walk([
    { at: 2, fault: 'cut' },
    { at: 9, fault: 'lose' },
  ])
  const say = (id: string): unknown => walk.rule({ name: 'X', isWrite: true, sessions: [id], isLook: false })
  expect([say('a'), say('b'), say('a'), say('a'), say('b')]).toEqual([undefined, undefined, 'cut', undefined, undefined])
  expect(walk.left).toBe(1)
  walk.again()
  expect(Array.from({ length: 10 }, () => say('c')).findIndex((fault) => fault === 'lose')).toBe(8)
  expect(walk.left).toBe(0)
})

it('finds the end of every kind of answer, and of none that is not whole', () => {
  const whole = [
    '+OK\r\n',
    '-ERR no\r\n',
    ':12\r\n',
    '$-1\r\n',
    '$4\r\na\r\nb\r\n',
    '*-1\r\n',
    '*2\r\n$1\r\na\r\n*1\r\n:1\r\n',
    '%1\r\n+a\r\n%1\r\n+b\r\n#t\r\n',
    '>3\r\n+message\r\n$1\r\nc\r\n$0\r\n\r\n',
    '_\r\n',
    ',1.5\r\n',
    '=7\r\ntxt:abc\r\n',
  ]
  for (const text of whole) {
    const bytes = Buffer.from(`${text}+next\r\n`)
    expect(messageEnd(bytes, 0), text).toBe(text.length)
    for (let cut = 0; cut < text.length; cut++) expect(messageEnd(Buffer.from(text.slice(0, cut)), 0), text).toBeUndefined()
  }
})
