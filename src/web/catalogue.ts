/** The models that there are to draw with. */
import { signal } from './signals.ts'
import type { Model, ModelPage } from '../client/types.ts'
import { get } from './api.ts'

const models = signal<readonly Model[]>([])
/** Of 500 models each. */
const mostPages = 10

/** Looks again what there is. @throws Problem */
export async function lookForModels(): Promise<void> {
  const found: Model[] = []
  for (let cursor = '', n = 0; n < mostPages; n++) {
    const page = await get<ModelPage>(`/models?limit=500${cursor && `&cursor=${encodeURIComponent(cursor)}`}`)
    found.push(...page.models)
    if (page.next === null) break
    cursor = page.next
  }
  models.value = found
}

/** Its picture, which not every model has. */
export const lookOf = ({ id, kind }: Model) => ({
  url: `/v1/models/${encodeURIComponent(id)}/picture?kind=${kind}`,
  width: 256,
  height: 256,
})

export const modelNamed = (id: string): Model | undefined => drawing().find((model) => model.id === id)
export const allModels = (): readonly Model[] => models.value
export const modelsOf = (kind: Model['kind']): readonly Model[] => models.value.filter((model) => model.kind === kind)
/** Those that draw. */
export const drawing = (): readonly Model[] => models.value.filter(({ status }) => status === 'usable')
