/**
 * One run of the verifier: programs and faults for so many minutes, then quiet, a bounded time to finish, and the
 * verdict. The same seed gives the same programs and the same plan of faults; when each meets which is the machine's
 * chance.
 */
import { setMaxListeners } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from '../../../src/config.ts'
import { keys } from '../../../src/keys.ts'
import { ended } from '../../../src/engine/session.ts'
import { eventually, sleep } from '../../support/wait.ts'
import { Chores } from './chores.ts'
import { Driver } from './driver.ts'
import { attemptsIn, byMachine, faultKinds, isHit, planOf, voids } from './faults.ts'
import { Fleet, lacking } from './fleet.ts'
import { judge, type Evidence, type Found, type Submitted, type View } from './judge.ts'
import { pictureSeeds, scenario, stream } from './program.ts'
import { dumpOf, recoveriesOf, summaryOf, usesIn, type Summary } from './report.ts'
import { picture, readLedger } from '../../support/program.ts'

export interface RunOptions {
  seed: number
  /** Of faults. */
  minutes: number
  /** Faults that must hit live work; half of the planned ones by default. */
  asked?: number | undefined
  workers?: number
  /** How long nothing may move, when the faults are over, before what has not ended counts as stuck, s. */
  settleS?: number
  /**
   * Waits until BullMQ has found the jobs of killed workers too, which may take it two minutes; otherwise those in
   * their hands are left to it.
   */
  isPatient?: boolean
  say: (line: string) => void
}

export interface Outcome extends Summary {
  isGood: boolean
}

/** Sessions under way at most, and started in a second. */
const atOnce = 24
const perSecond = 2
const apis = 2
/** BullMQ's lock, and two of its checks. */
const orphansMs = 150_000
/** Until the queues of a device that is gone are removed, and then some. */
const desertedMs = 40_000
/** A run of so many minutes uses everything there is. */
const wholeMinutes = 2
/** What is asked at the end may take so long. */
const clerkMs = 600_000
/** Stuck sessions that are shown whole. */
const shown = 3

export async function verify({
  seed,
  minutes,
  workers = 3,
  settleS = 60,
  isPatient = false,
  say,
  ...options
}: RunOptions): Promise<Outcome> {
  const startedOn = Date.now()
  const plan = planOf({ seed, minutes, workers, apis, kinds: faultKinds.filter((kind) => !lacking.has(kind)) })
  const asked = options.asked ?? Math.ceil(plan.length / 2)
  say(`seed ${seed}: ${minutes} minutes on ${workers} workers and ${apis} APIs, ${plan.length} faults planned, ${asked} must hit live work`)
  for (const [kind, why] of lacking) say(`no fault of the kind ${kind} can be done here, and none counts: ${why}`)
  await using fleet = await Fleet.start({ seed, workers, apis, module: pathToFileURL(join(root, 'test/support/program.ts')).href })
  const { farm } = fleet
  const ledger = join(farm.folder, 'ledger')
  const over = new AbortController()
  // Every client listens to it.
  setMaxListeners(0, over.signal)
  let beCalm: () => void = () => undefined
  const calm = new Promise<void>((resolve) => (beCalm = resolve))
  const driver = new Driver({ fleet, seed, ledger, over: over.signal, calm })
  await driver.prepare()
  const pictures: string[] = []
  for (let i = 0; i < pictureSeeds; i++) pictures.push(...(await farm.undisturbed(picture(i))))
  const chores = new Chores({ driver, seed, over: over.signal })
  await chores.prepare()
  say(`three pictures drawn undisturbed; programs and faults begin`)

  // ---- programs and faults ----
  const startedAt = performance.now()
  const elapsed = (): number => performance.now() - startedAt
  const submitted: Submitted[] = []
  const open = new Set<Promise<void>>()
  const progress = (phase: string): void =>
    say(
      `${String(Math.round(elapsed() / 1000)).padStart(5)} s  ${phase}: ${submitted.length} sessions submitted, ${open.size} under way, ${fleet.injected.length} of ${plan.length} faults done`,
    )
  const ticking = setInterval(() => progress(elapsed() < minutes * 60_000 ? 'faults' : 'settling'), 10_000)
  try {
    const breaking = (async () => {
      for (const [i, fault] of plan.entries()) {
        await sleep(Math.max(0, fault.atMs - elapsed()))
        fleet.inject(fault, i)
      }
    })()
    const beside = chores.run(minutes * 60_000)
    while (elapsed() < minutes * 60_000) {
      if (open.size < atOnce) {
        const each: Submitted = {
          scenario: scenario(seed, submitted.length),
          ids: [],
          wasThere: null,
          again: null,
          first: null,
          streamed: [],
        }
        submitted.push(each)
        const driven: Promise<void> = driver.drive(each).finally(() => open.delete(driven))
        open.add(driven)
      }
      await sleep(1000 / perSecond)
    }
    await breaking
    await fleet.calm()
    await beside
    await chores.end()

    // ---- quiet: everything has to end now ----
    const faultsMs = elapsed()
    beCalm()
    const eventsSeen = (): number => submitted.reduce((sum, { streamed }) => sum + streamed.length, 0)
    await whileMoving(
      () => `${open.size} ${eventsSeen()}`,
      () => open.size > 0,
      settleS,
    )
    over.abort()
    await Promise.all(open)
    const clerk = new Driver({ fleet, seed, ledger, over: AbortSignal.timeout(clerkMs), calm })
    const draw = stream(seed, 'verdict', 0)
    // Children are cancelled behind their parents.
    let views = await clerk.list(draw)
    const openOnes = (): string[] => views.filter(({ status }) => !ended.has(status)).map(({ id, version }) => `${id} ${String(version)}`)
    const areLeft = async (): Promise<boolean> => {
      views = await clerk.list(draw)
      return openOnes().length > 0
    }
    await whileMoving(() => openOnes().join(), areLeft, settleS)
    const settlingMs = elapsed() - faultsMs
    progress('settled')

    const stuck = views.filter(({ status }) => !ended.has(status))
    for (const { id } of stuck.slice(0, shown)) say(await dumpOf(farm, id))
    if (stuck.length > 0) say(farm.lastWords())
    const leftovers = await jobsLeft(fleet, isPatient)
    for (const each of submitted) {
      const answer = await clerk.send(each.scenario, draw)
      each.again = answer ? { status: answer.status, id: (answer.json as View).id } : { status: 503, id: '' }
    }
    const found = await gather(fleet, views)
    leftovers.push(...(await fleet.retire()), ...(await devicesLeft(fleet)))
    for (const each of found) await lookAgain(fleet, each)
    const isWhole = (await fleet.farm.client.get('/v1/sessions?limit=1')).status === 200
    if (!isWhole) leftovers.push('the API does not answer when all is over')

    const attempts = found.flatMap(({ view, history }) => attemptsIn(view.id, history, byMachine(startedOn, Date.now())))
    const evidence: Evidence = {
      pictures,
      submitted,
      found,
      ledger: new Map(readdirSync(ledger).map((key) => [key, readLedger(join(ledger, key))])),
      leftovers: [...leftovers, ...fleet.problems],
      answers: [...driver.answers, ...clerk.answers],
      attempts,
      chores: chores.done,
    }
    evidence.leftovers.push(...(await fleet.end()))
    const hits = fleet.injected.filter((fault) => isHit(fault, attempts, driver.asked))
    const verdict = judge(evidence)
    const summary: Summary = {
      evidence,
      verdict,
      voids: [...voids(plan, hits, asked), ...(minutes < wholeMinutes ? [] : unused(evidence))],
      plan,
      hits,
      figures: recoveriesOf(attempts, hits),
      seconds: { faults: Math.round(faultsMs / 1000), settling: Math.round(settlingMs / 1000) },
      ownEnds: fleet.ownEnds,
    }
    say(`\n${summaryOf(summary)}\n`)
    return { ...summary, isGood: isGood(summary) }
  } finally {
    clearInterval(ticking)
    over.abort()
  }
}

/**
 * Waits while there is something left that moves: a slow machine is no fault. Gives up when nothing has moved for so
 * many seconds, or after ten times as long whatever moves.
 */
async function whileMoving(look: () => string, isLeft: () => boolean | Promise<boolean>, seconds: number): Promise<void> {
  const startedAt = performance.now()
  for (let [movedAt, last] = [startedAt, look()]; await isLeft(); await sleep(500)) {
    const now = performance.now()
    const seen = look()
    if (seen !== last) [movedAt, last] = [now, seen]
    if (now - movedAt > seconds * 1000 || now - startedAt > seconds * 10_000) return
  }
}

/** Of a thousand sessions one may be given up with reason, and of fewer one. */
const isGood = ({ evidence, verdict, voids: why }: Summary): boolean =>
  verdict.violations.length === 0 && why.length === 0 && verdict.excused.length <= Math.max(1, evidence.found.length / 1000)

const unused = (evidence: Evidence): string[] => [...usesIn(evidence)].flatMap(([what, times]) => (times === 0 ? [`no ${what} in it`] : []))

async function gather({ farm }: Fleet, views: View[]): Promise<Found[]> {
  const found: Found[] = []
  for (const view of views) found.push({ view, history: await farm.history(view.id), last: { view, entries: 0 } })
  return found
}

async function lookAgain({ farm }: Fleet, found: Found): Promise<void> {
  found.last = { view: (await farm.get(found.view.id)) as unknown as View, entries: await farm.eye.llen(keys.history(found.view.id)) }
}

/** Jobs that are in some queue though no step is open any more. */
async function jobsLeft({ farm }: Fleet, isPatient: boolean): Promise<string[]> {
  const look = async (): Promise<string[]> => {
    const left: string[] = []
    for (const key of await farm.eye.keys('darkroom:{q.*}:*')) {
      const kind = key.slice(key.lastIndexOf(':') + 1)
      if (!['wait', 'prioritized', 'delayed', 'active', 'paused', 'completed', 'failed', 'waiting-children'].includes(kind)) continue
      if (kind === 'active' && (!isPatient || (await isHeldUp(key.slice(0, -':active'.length))))) continue
      const type = await farm.eye.type(key)
      const jobs = type === 'list' ? await farm.eye.lrange(key, 0, -1) : await farm.eye.zrange(key, '0', '-1')
      left.push(...jobs.filter((job) => !job.startsWith('0:')).map((job) => `job ${job} in ${key}`))
    }
    return left
  }
  /** BullMQ's own locks and looks go by Redis' wall clock: one made while it was ahead lasts an hour longer. */
  const isHeldUp = async (queue: string): Promise<boolean> => {
    const locks = [`${queue}:stalled-check`, ...(await farm.eye.keys(`${queue}:*:lock`))]
    return (await Promise.all(locks.map((lock) => farm.eye.pttl(lock)))).some((ms) => ms > orphansMs)
  }
  let left = await look()
  await eventually(
    'no job left',
    async () => {
      await sleep(500)
      left = await look()
      return left.length === 0
    },
    isPatient ? orphansMs : desertedMs,
  ).catch(() => undefined)
  return left
}

/**
 * Leases of devices and records of workers, when no worker is there any more; those of killed ones end by themselves.
 */
async function devicesLeft({ farm }: Fleet): Promise<string[]> {
  const look = (): Promise<string[]> =>
    Promise.all([farm.eye.keys('darkroom:{device:*}:lease'), farm.eye.keys('darkroom:{workers}:worker:*')]).then((found) => found.flat())
  let left = await look()
  await eventually('no device held', async () => (left = await look()).length === 0, 10_000).catch(() => undefined)
  return left.map((key) => `${key} is still there`)
}
