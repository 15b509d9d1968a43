/** What the steps of diffusion share of ControlNets. */
import { maxControls, type Control, type WantedModel } from '../values.ts'

/** Files that may be given: the picture of control number n, before its preprocessor. */
export const controlFiles = Array.from({ length: maxControls }, (_, n) => `control${n}`)

export const filesOfControl = (control: readonly Control[] = []): Record<string, string> =>
  Object.fromEntries(control.flatMap(({ picture }, n) => (picture ? [[`control${n}`, picture.sha256]] : [])))

/** Each of its ControlNets once. */
export function modelsOfControl(control: readonly Control[] = []): WantedModel[] {
  const byBody = new Map(control.map(({ model }) => [model.bodyHash, { ...model, kind: 'controlnet' as const }]))
  return [...byBody.values()]
}
