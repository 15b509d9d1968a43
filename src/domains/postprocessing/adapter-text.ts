/** Adapters in a prompt, as AUTOMATIC1111's web UI writes them: tags behind it. */
import type { AdapterPin } from '../values.ts'

type Named = Pick<AdapterPin, 'weight'> & { textWeight?: number | undefined; model: string }

/** What stands behind a prompt that is led by these; nothing for none. */
export const tagsOf = (adapters: readonly Named[]): string =>
  adapters.length === 0
    ? ''
    : ` ${adapters
        .map(({ model, weight, textWeight }) =>
          textWeight === undefined ? `<lora:${model}:${weight}>` : `<lora:${model}:${textWeight}:${weight}>`,
        )
        .join('')}`
