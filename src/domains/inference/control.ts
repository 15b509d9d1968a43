/** What the steps of diffusion share of ControlNets. */
import { maxControls, networkOf, type Control, type WantedModel } from '../values.ts'

/** Files that may be given: the picture of control number n, before its preprocessor. */
export const controlFiles = Array.from({ length: maxControls }, (_, n) => `control${n}`)

export const filesOfControl = (control: readonly Control[] = []): Record<string, string> =>
  Object.fromEntries(control.flatMap(({ picture }, n) => (picture ? [[`control${n}`, picture.sha256]] : [])))

/** Each of its ControlNets once, and each network that sees what they are shown. */
export function modelsOfControl(control: readonly Control[] = []): WantedModel[] {
  const all = control.flatMap(({ model, preprocessor }) => [{ ...model, kind: 'controlnet' as const }, ...networkOf(preprocessor)])
  return [...new Map(all.map((each) => [`${each.kind} ${each.bodyHash}`, each])).values()]
}
