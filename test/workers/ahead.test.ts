/** The steps of a picture follow one another on the worker that has begun it, on a farm of two. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'

const steps = ['inference.encode', 'inference.denoise', 'inference.decode', 'postprocessing.save']

describe('the steps of a picture', () => {
  let farm: Farm
  afterEach(() => farm[Symbol.asyncDispose]())

  /** Of each step of a session but the first: whether one commit ended the step before and began it. */
  async function inOneCommit(id: string): Promise<(boolean | undefined)[]> {
    const history = await farm.history(id)
    return steps.slice(1).map((step) => {
      const at = history.findIndex((event) => event.type === 'step.started' && event.step === step)
      const [before, begun] = [history[at - 1], history[at]]
      return before?.type === 'step.completed' && before.at === begun?.at
    })
  }

  it('follow one another in the commits of their results', async () => {
    farm = await startFarm({ workers: 2 })
    const ids = [await farm.submit({ seed: 1 }), await farm.submit({ seed: 2 })]
    for (const id of ids) await farm.pictures(id)
    for (const id of ids) expect(await inOneCommit(id)).toEqual([true, true, true])
  })

  it('go through the queues where lease chaining is off', async () => {
    farm = await startFarm({ settings: { DARKROOM_STEPS_IN_A_ROW: '1' } })
    const id = await farm.submit({ seed: 1 })
    await farm.pictures(id)
    expect(await inOneCommit(id)).toEqual([false, false, false])
  })

  it('say what they have to say also when they have begun ahead', async () => {
    farm = await startFarm()
    const id = await farm.submit({ seed: 3, guidance: 1, negativePrompt: 'blue' })
    await farm.pictures(id)
    expect(await inOneCommit(id)).toEqual([true, true, true])
    const { notes } = await farm.receipt(id)
    expect(notes.map(({ note }) => note).join()).toContain('the negative prompt is not heard')
  })

  it('ask the child for no model that it has drawn with a moment ago, and for one that it has let go of since', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'darkroom-once-'))
    const asked = join(folder, 'asked.0')
    farm = await startFarm({ fake: ['--once', join(folder, 'asked'), '--fault', 'die-after:model.ensure'] })
    // The first one may ask: the mark says that a child has died of it already.
    await writeFile(asked, '')
    await farm.pictures(await farm.submit({ seed: 5 }))
    await rm(asked)
    await farm.pictures(await farm.submit({ seed: 6 }))
    expect(await readdir(folder)).toEqual([])
    const { json } = await farm.client.post('/v1/models/darkroom-tiny/unload', {}, { Prefer: 'wait=20' })
    expect(json.unloaded).toMatchObject([{ id: 'darkroom-tiny' }])
    await farm.pictures(await farm.submit({ seed: 7 }))
    expect(await readdir(folder)).toEqual(['asked.0'])
    await rm(folder, { recursive: true })
  })

  it('a child that dies with the last frame of one costs the next one no try', async () => {
    const once = await mkdtemp(join(tmpdir(), 'darkroom-once-'))
    farm = await startFarm({ fake: ['--once', join(once, 'after'), '--fault', 'die-after:inference.encode'] })
    const id = await farm.submit({ seed: 4 })
    await farm.pictures(id)
    // It did die.
    expect(await readdir(once)).toHaveLength(1)
    await rm(once, { recursive: true })
    const attempts = await farm.attempts(id, 'inference.denoise')
    expect(attempts.at(-1)?.end).toBe('completed')
    // It had not begun there; where the child is missed before that, it waits for another one.
    expect(attempts.slice(0, -1).map(({ end }) => end)).not.toContain('failed')
  })
})
