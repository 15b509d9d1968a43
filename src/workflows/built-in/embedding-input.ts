/** What a request says of textual inversions: words of its prompts that are vectors of their own. */
import { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import { ModelName, type EmbeddingPin } from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'
import type { Listed } from '../../models/listing.ts'
import type { Verdict } from '../../models/verdict.ts'

/** Most embeddings of one picture. */
const maxEmbeddings = 16
/** Places of a word in one window of CLIP. */
const maxVectors = 75

/** What a form of a workflow that draws may say of embeddings. */
export const embeddingFields = {
  embeddings: z
    .array(ModelName)
    .max(maxEmbeddings, `must be at most ${maxEmbeddings} embeddings`)
    .optional()
    .describe('textual inversions whose names stand in `prompt` or `negativePrompt`'),
}

/** An embedding of a session: its hash is null until a step has computed it. */
export type WantedEmbedding = Omit<EmbeddingPin, 'model'> & { model: { id: string; bodyHash: string | null } }
type Texts = { prompt: string; negativePrompt: string }
type Given = Texts & { embeddings?: string[] | undefined; promptAdapters?: boolean | undefined }

/** ComfyUI's way to name one in a prompt. */
const tag = /\bembedding:([\w./-]*\w)/gi

/**
 * The texts with plain names where they name embeddings, and the embeddings looked up; nothing of them where there are
 * none.
 * @throws DarkroomError `api.invalid`, `model.unknown`, `model.unusable`
 */
export async function completeEmbeddings(
  given: Given,
  model: { id: string; family: string },
  catalogue: Pick<Catalogue, 'named' | 'ofKind'>,
): Promise<Texts & { embeddings?: WantedEmbedding[] }> {
  const { prompt, negativePrompt } = given
  const texts = { prompt, negativePrompt }
  const wanted = (given.embeddings ?? []).map((name, at) => ({ name, field: `input.embeddings.${at}` }))
  if (given.promptAdapters)
    for (const field of ['prompt', 'negativePrompt'] as const)
      texts[field] = texts[field].replaceAll(tag, (_, name: string) => {
        if (!wanted.some((each) => each.name === name)) wanted.push({ name, field: `input.${field}` })
        return name
      })
  if (wanted.length === 0) return texts
  const problems: FieldProblem[] = []
  if (wanted.length > maxEmbeddings)
    problems.push({
      field: 'input.prompt',
      message: `names ${wanted.length} embeddings with those of \`embeddings\`; at most ${maxEmbeddings} are heard`,
    })
  const base = await catalogue.named(model.id, 'drawing')
  const embeddings: WantedEmbedding[] = []
  for (const { field, name } of wanted) {
    const listed = await catalogue.ofKind('embedding', name, field)
    const word = wordOf(name, texts)
    const problem =
      word === undefined
        ? `${name} stands neither in \`prompt\` nor in \`negativePrompt\`: write its name where it is to be heard`
        : embeddings.some((other) => other.word === word)
          ? `names embedding ${name} a second time`
          : unfit(listed, base.entry.verdict, model)
    if (problem !== undefined) problems.push({ field, message: problem })
    embeddings.push({ model: { id: listed.id, bodyHash: listed.bodyHash }, word: word ?? '' })
  }
  if (problems.length > 0) throw invalidFields(problems)
  return { ...texts, embeddings }
}

/** How the texts name it: by its whole name, or by that of its file. */
function wordOf(name: string, { prompt, negativePrompt }: Texts): string | undefined {
  const whole = name.replace(/ \[[0-9a-f]{10}\]$/, '')
  const escaped = (word: string) => word.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)
  const isThere = (word: string) => new RegExp(String.raw`(?<!\w)${escaped(word)}(?!\w)`, 'iu').test(`${prompt}\n${negativePrompt}`)
  return [whole, whole.slice(whole.lastIndexOf('/') + 1)].find(isThere)
}

/** Why an embedding is none for this model, as far as headers tell. */
function unfit({ id, entry: { verdict } }: Listed, base: Verdict, model: { id: string; family: string }): string | undefined {
  const { figures, format } = verdict
  if (format !== 'safetensors') return `${id} is kept as ${format}, which is not opened: fetch or convert it to safetensors`
  if (!['sd1', 'sdxl', 'sdxl-refiner'].includes(model.family))
    return `${id} is an embedding, which Stable Diffusion 1, 2 and XL alone hear, and model ${model.id} is ${base.family ?? model.family}`
  if (figures.vectors !== undefined && figures.vectors > maxVectors)
    return `${id} takes ${figures.vectors} places of a prompt, and a text encoder reads ${maxVectors} at once`
  const isXl = model.family !== 'sd1'
  const [own, other] = [figures.hiddenSize, isXl ? undefined : base.figures.contextSize]
  if (own !== undefined && other !== undefined && own !== other)
    return `${id} has vectors of ${own} numbers, and those of the text encoder of model ${model.id} have ${other}`
  if ((verdict.family === 'sdxl') !== isXl && verdict.family !== undefined)
    return `${id} is an embedding for ${verdict.family}, and model ${model.id} is ${base.family ?? model.family}`
  return undefined
}
