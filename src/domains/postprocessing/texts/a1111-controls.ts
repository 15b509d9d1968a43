/**
 * ControlNets by the names of the extension that AUTOMATIC1111's web UI has them from (Mikubill/sd-webui-controlnet,
 * `scripts/infotext.py`): `ControlNet 0: "Module: canny, Model: …"`. The picture has no name there, so what is read
 * back is our own list beside it.
 */
import { maxControls, type Control, type ImageRequest } from '../../values.ts'
import type { Setting } from './reading.ts'

/** Preprocessors that the extension has by another name; those that it has not keep ours. */
const modules: Partial<Record<NonNullable<Control['preprocessor']>['name'], string>> = {
  tile: 'tile_resample',
  blur: 'blur_gaussian',
  invert: 'invert (from white bg & black line)',
}
const resizes = { stretch: 'Just Resize', crop: 'Crop and Resize', pad: 'Resize and Fill' } as const
const modes = { balanced: 'Balanced', prompt: 'My prompt is more important', control: 'ControlNet is more important' } as const

function unitOf({ model, preprocessor, weight, resize, start, end, mode }: Control): string {
  const canny = preprocessor?.name === 'canny' ? preprocessor : undefined
  const said = {
    Module: preprocessor ? (modules[preprocessor.name] ?? preprocessor.name) : 'none',
    // What reads this splits it at both signs.
    Model: `${model.id.replaceAll(/[,:]/g, ' ')} [${model.bodyHash.slice(0, 8)}]`,
    Weight: weight,
    'Resize Mode': resize && resizes[resize],
    'Threshold A': canny?.low,
    'Threshold B': canny?.high,
    'Guidance Start': start,
    'Guidance End': end,
    'Control Mode': modes[mode],
  }
  return Object.entries(said)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${value}`)
    .join(', ')
}

/** `ours`: the setting that says all of them with their pictures. */
export const controlSettings = (ours: string): Setting[] =>
  Array.from({ length: maxControls }, (_, n) => ({
    name: `ControlNet ${n}`,
    write({ control }: ImageRequest) {
      const each = control?.[n]
      return each && unitOf(each)
    },
    read(value, reading, all) {
      if (!all.has(ours)) reading.lost(this.name, value, 'the text does not name its picture: send that, and name it in `control`')
    },
  }))
