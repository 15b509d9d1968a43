/** What the steps of diffusion share. */
import { fileBytesOf } from '../python-files.ts'
import {
  upscalerOf,
  withOwnVae,
  type AdapterPin,
  type Control,
  type EmbeddingPin,
  type ImageRequest,
  type Upscaler,
  type WantedModel,
} from '../values.ts'
import { modelsOfControl } from './control.ts'

interface Input {
  model: WantedModel
  width?: number
  height?: number
  control?: readonly Control[] | undefined
  adapters?: readonly AdapterPin[] | undefined
  embeddings?: readonly EmbeddingPin[] | undefined
  upscaler?: Upscaler | undefined
}

/** What the class of a picture adds to the settings that its bits follow from: nothing where they are promised. */
export const classFacts = ({ class: drawingClass = 'exact' }: Pick<ImageRequest, 'class'>): Record<string, string> =>
  drawingClass === 'exact' ? {} : { class: drawingClass }

/** A step on the device that needs its models there, and room for what it hands on. */
export const onDevice = {
  lane: 'gpu',
  ahead: true,
  attempts: 3,
  needs: ({ model, control = [], adapters = [], embeddings = [], upscaler, ...size }: Input) => ({
    models: [
      ...withOwnVae(model),
      ...modelsOfControl(control),
      ...adapters.map((adapter) => ({ ...adapter.model, kind: 'lora' as const })),
      ...embeddings.map((embedding) => ({ ...embedding.model, kind: 'embedding' as const })),
      ...upscalerOf(upscaler),
    ],
    fileBytes: fileBytesOf(size),
  }),
} as const
