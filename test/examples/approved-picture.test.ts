import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { eventually } from '../support/wait.ts'
import { startFarm, type Farm } from '../support/farm.ts'

describe('the example of a workflow of one’s own', () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ module: new URL('./module.ts', import.meta.url).href, fake: ['--call-ms', '1'] })
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const start = (): Promise<string> => farm.submit({ prompt: 'a red circle', seed: undefined }, { workflow: 'approved-picture' })
  const children = async (id: string): Promise<{ input: { steps: number } }[]> =>
    (await farm.client.get(`/v1/sessions?parent=${id}`)).json.sessions
  const waits = (id: string): Promise<unknown> =>
    eventually('it waits for a person', async () => (await farm.get(id)).waiting === 'a timer' && (await children(id)).length === 1)
  const signal = (id: string, type: string) => farm.client.post(`/v1/sessions/${id}/signal`, { type })

  it('stands in the README as it is', () => {
    expect(readFileSync(join(root, 'README.md'), 'utf8')).toContain(readFileSync(join(root, 'examples/approved-picture.ts'), 'utf8'))
  })

  it('sketches, waits for a person, and draws once it is approved', async () => {
    const id = await start()
    await waits(id)
    expect((await signal(id, 'approve')).status).toBe(200)
    await farm.until(id, 'succeeded')
    const [full, sketch] = await children(id)
    expect(sketch?.input.steps).toBe(6)
    expect(full?.input.steps).not.toBe(6)
  })

  it('draws nothing more once it is discarded', async () => {
    const id = await start()
    await waits(id)
    await signal(id, 'discard')
    await farm.until(id, 'succeeded')
    expect(await children(id)).toHaveLength(1)
  })
})
