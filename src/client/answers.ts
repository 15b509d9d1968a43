/** What the client reads of a response that is a success. An answer that was cut throws whatever `fetch` throws. */
import type { HealthView } from '../api/health/views.ts'
import { describeText, parsed, Problem } from './problem.ts'

/** @throws Problem `api.not_darkroom` for what is no object of JSON */
export async function readJson<T>(response: Response): Promise<T> {
  const text = await response.text()
  const value = parsed(text)
  if (value === undefined) throw Problem.notDarkroom(response, describeText(text))
  return value as T
}

/** @throws Problem `api.not_darkroom` */
export async function readHealth(response: Response): Promise<HealthView> {
  const health = await readJson<HealthView>(response)
  if (health.status !== 'ok') throw Problem.notDarkroom(response, 'what is no answer of Darkroom')
  return health
}

/** Lets the connection be used again. */
export const nothing = async (response: Response): Promise<void> => void (await response.arrayBuffer())
