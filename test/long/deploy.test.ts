/**
 * A new release reaches a farm under load, process by process: no session notices, and each ends under the version it
 * began with.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { productTimes } from '../../src/engine/times.ts'
import { keys } from '../../src/keys.ts'
import { startFarm } from '../support/farm.ts'
import { eventually, sleep } from '../support/wait.ts'
import { deploy } from '../support/program.ts'
import { module, Scripted, type Line } from '../support/scripted.ts'

/** Sessions at the least, and at most under way at a time. */
const [least, abreast] = [200, 40]

describe('farms', { timeout: 600_000 }, () => {
  it('a release rolls over eight workers and two APIs under load: both versions run side by side, nothing is lost, reclaimed or run twice', async () => {
    await using farm = await startFarm({ workers: 8, apis: 2, times: productTimes, module, fake: ['--call-ms', '40'] })
    const resting = await Scripted.begin(farm, [{ say: 'one' }, { signal: true }, { say: 'two' }])
    await eventually('it waits for a signal', async () => (await farm.get(resting.id)).waiting === 'a signal')
    await farm.control(resting.id, 'pause')
    await farm.until(resting.id, 'paused')

    // Held in the middle of its picture, so that at least one worker is asked to go there.
    const open = await farm.gate(50, 3)
    const held = await farm.submit({ seed: 50 })
    await farm.untilCall(held, 3)

    const lines: Line[] = [{ say: 'one' }, { child: [{ say: 'in' }] }, { waitMs: 50 }, { say: 'two' }]
    const plays: Scripted[] = []
    const pictures: string[] = []
    const submitted: string[] = []
    const serving = new Set(farm.apis)
    let isOver = false
    const statusOf = (id: string): Promise<string | null> => farm.eye.hget(keys.session(id), 'status')
    const submitting = (async () => {
      for (let n = 0; !isOver || n < least; n++) {
        // Those of one kind of API would all be of one version.
        const apis = farm.apis.filter((each) => serving.has(each))
        const api = apis[n % apis.length]
        if (!api) throw new Error('no API serves')
        if (n % 3 > 0) plays.push(await Scripted.begin(farm, lines, { api }))
        else {
          const input = { prompt: 'a red circle', seed: pictures.length % 3, steps: 20 }
          pictures.push((await farm.clientOf(api).post('/v1/sessions', { workflow: 'image-generation', input })).json.id)
        }
        submitted.push(n % 3 > 0 ? (plays.at(-1)?.id ?? '') : (pictures.at(-1) ?? ''))
        const earlier = submitted[n - abreast]
        if (earlier !== undefined) await eventually('room', async () => (await statusOf(earlier)) === 'succeeded', 60_000)
        // Beyond that they only keep the load up, however long a busy machine takes to start a process.
        await sleep(n < least ? 20 : 300)
      }
    })()
    submitting.catch(() => undefined)

    await Promise.race([eventually('load', () => Promise.resolve(plays.length > 10)), submitting])
    deploy(join(farm.folder, 'data'))
    const [old, next] = farm.apis
    const restarted: string[] = []
    for (const each of [next, ...farm.workers, old]) {
      if (!each) throw new Error('this farm has two APIs')
      // As a load balancer does.
      serving.delete(each)
      const before = each.ready
      await each.stop(15_000)
      await each.start()
      if (farm.apis.includes(each)) serving.add(each)
      else restarted.push(before)
    }
    isOver = true
    await submitting
    await open()
    expect(await farm.pictures(held)).toEqual(await farm.undisturbed({ seed: 50 }))
    pictures.push(held)

    const counts: Record<string, number> = { 'program@1': 0, 'program@2': 0 }
    for (const play of plays) {
      const said = await play.said()
      const { workflow } = (await farm.client.get(`/v1/sessions/${play.id}`)).json as { workflow: string }
      counts[workflow] = (counts[workflow] ?? 0) + 1
      const mark = workflow === 'program@2' ? 'v2:' : ''
      expect(said).toEqual([`${mark}one`, ['in'], 'waited', `${mark}two`])
      expect(play.runs).toEqual({ one: 1, in: 1, two: 1 })
    }
    expect(counts['program@1']).toBeGreaterThanOrEqual(8)
    expect(counts['program@2']).toBeGreaterThanOrEqual(8)
    const shas = await Promise.all(pictures.map(async (id) => (await farm.pictures(id)).join()))
    expect(new Set(shas)).toHaveProperty('size', 4)
    expect(plays.length + pictures.length).toBeGreaterThanOrEqual(least)

    const histories = await Promise.all([...plays.map(({ id }) => id), ...pictures].map((id) => farm.history(id)))
    const events = histories.flat()
    expect(events.filter(({ type }) => type === 'step.recovered' || type === 'step.failed' || type === 'step.retrying')).toEqual([])
    // Every worker had work when it was asked to go.
    const workers = new Set(events.flatMap(({ type, worker }) => (type === 'step.started' ? [worker] : [])))
    expect(restarted.filter((id) => !workers.has(id))).toEqual([])
    const handedOver = events.filter(({ type, reason }) => type === 'step.released' && reason === 'drain')
    expect(handedOver.length, 'void: no worker was asked to go in the middle of a picture').toBeGreaterThan(0)
    process.stdout.write(
      `${plays.length + pictures.length} sessions, ${counts['program@2']} of the new version, ${handedOver.length} steps handed over\n`,
    )

    // The one that slept through it is of the version it began with.
    await farm.control(resting.id, 'resume')
    await resting.signal('here')
    expect(await resting.said()).toEqual(['one', 'here', 'two'])
    expect((await farm.client.get(`/v1/sessions/${resting.id}`)).json).toMatchObject({ workflow: 'program@1' })

    for (const { name } of [...farm.apis, ...farm.workers]) {
      const file = join(farm.folder, `${name}.log`)
      const errors = (existsSync(file) ? readFileSync(file, 'utf8') : '')
        .split('\n')
        .filter(
          (line) =>
            line.startsWith('{') && (JSON.parse(line) as { level: number | string }).level.toString().match(/^(50|60|error|fatal)$/),
        )
      expect(errors, name).toEqual([])
    }
  })
})
