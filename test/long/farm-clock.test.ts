/** The farm's time over a Redis whose wall clock is set: it goes on as real time does, whatever that clock says. */
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { ClockKeeper, takeTurn, tellTime } from '../../src/clock.ts'
import { keys } from '../../src/keys.ts'
import { createLog } from '../../src/log.ts'
import { connect, runScript, type Redis } from '../../src/redis.ts'
import { startTestRedis, type TestRedis } from '../support/redis.ts'
import { eventually } from '../support/wait.ts'

const hourMs = 3_600_000
/** A keeper writes four times a second; a busy machine takes its time. */
const toleranceMs = 1500
const clock = keys.clock(0)

let server: TestRedis
let redis: Redis
let keepers: ClockKeeper[]
beforeEach(async () => {
  server = await startTestRedis({ clock: true })
  redis = connect(server.url, { patience: 'wait' })
  keepers = []
})
afterEach(async () => {
  await Promise.all(keepers.map((keeper) => keeper.stop()))
  redis.disconnect()
  await server.stop()
})

const keeper = (): ClockKeeper => {
  const made = new ClockKeeper(redis, [clock], createLog('silent', 'test'))
  keepers.push(made)
  return made
}
const kept = (): ClockKeeper => {
  const made = keeper()
  made.start()
  return made
}
const untilKept = (): Promise<unknown> => eventually('somebody keeps it', async () => (await redis.exists(clock)) === 1)
const now = async (): Promise<number> => (await tellTime(redis, clock)).now
/** How far the time is from where it should be, having been `then` some real time ago, ms. */
const astray = async (then: number, at: number): Promise<number> => (await now()) - (then + performance.now() - at)

it.each([
  ['back by an hour and right again', [-hourMs, 0]],
  ['forward by an hour and right again', [hourMs, 0]],
  ['to and fro by days', [86_400_000, -86_400_000]],
  ['by a second and a half, again and again', [1500, 0, 3000]],
])('a wall clock that is set %s: at no moment is the time elsewhere, nor less than it was', async (_, offsets) => {
  kept()
  await untilKept()
  const [then, at] = [await now(), performance.now()]
  let before = then
  for (const offset of offsets) {
    await server.setClock(offset)
    for (const until = performance.now() + 700; performance.now() < until;) {
      const seen = await now()
      expect(Math.abs(seen - (then + performance.now() - at))).toBeLessThan(toleranceMs * offsets.length)
      expect(seen).toBeGreaterThan(before - 600)
      before = Math.max(before, seen)
    }
    expect(Math.abs(await astray(then, at))).toBeLessThan(toleranceMs * offsets.length)
  }
  expect((await tellTime(redis, clock)).wall - Date.now()).toBeGreaterThan((offsets.at(-1) ?? 0) - 2000)
})

it('a Redis that does not answer for three seconds: they have passed all the same', async () => {
  kept()
  await untilKept()
  const [then, at] = [await now(), performance.now()]
  const thaw = server.freeze()
  await delay(3000)
  thaw()
  await delay(700)
  expect(Math.abs(await astray(then, at))).toBeLessThan(600)
  expect(await redis.get(clock)).toMatch(/^0 /)
})

it('an hour in which nobody kept it has passed: the first keeper believes the wall clock when it saw it stand still', async () => {
  await keeper().keep(clock)
  const then = await now()
  await server.setClock(hourMs)
  expect(await now()).toBeLessThanOrEqual(then + 600)
  kept()
  await eventually('the hour has passed', async () => (await now()) > then + hourMs)
  expect(await redis.get(clock)).toMatch(/^0 /)
})

it('a process that starts while the wall clock leaps does not believe it: another one keeps the time', async () => {
  kept()
  await untilKept()
  const [then, at] = [await now(), performance.now()]
  await server.setClock(hourMs)
  const fresh = kept()
  for (let i = 0; i < 20; i++) {
    await fresh.keep(clock)
    await delay(100)
  }
  expect(Math.abs(await astray(then, at))).toBeLessThan(toleranceMs)
})

it('a process whose own clock stood still turns nothing back: what others have written stands', async () => {
  kept()
  await untilKept()
  await delay(1000)
  const told = (await now()) - 60_000
  const before = await now()
  // It was told a minute ago, as it says, and no time has passed since.
  for (let i = 0; i < 3; i++) {
    const [is, last] = await runScript(redis, 'keepClock', clock, [told, 0, ''])
    if (is === 'leapt') await runScript(redis, 'keepClock', clock, [told, 0, String(last)])
  }
  expect(await now()).toBeGreaterThanOrEqual(before - 600)
})

it('a full Redis keeps its time', async () => {
  kept()
  await untilKept()
  await redis.config('SET', 'maxmemory', '1')
  const written = await redis.get(clock)
  await eventually('it is written on', async () => (await redis.get(clock)) !== written)
  expect(await redis.get(clock)).not.toBe(written)
})

it('a turn that was taken before the clock was set back comes again in its time', async () => {
  const store = new ClockKeeper(redis, [keys.storeClock()], createLog('silent', 'test'))
  keepers.push(store)
  store.start()
  await eventually('somebody keeps it', async () => (await redis.exists(keys.storeClock())) === 1)
  expect(await takeTurn(redis, keys.retention(), 900)).toBe(true)
  expect(await takeTurn(redis, keys.retention(), 900)).toBe(false)
  await server.setClock(-hourMs)
  await eventually('it comes again', () => takeTurn(redis, keys.retention(), 900))
})
