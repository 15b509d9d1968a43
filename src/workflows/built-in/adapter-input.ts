/** What a request says of adapters: the form that clients send, and how it is completed. */
import { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import { ModelName, type AdapterPin } from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'
import { familyNames } from '../../models/families.ts'
import type { Listed } from '../../models/listing.ts'
import type { Algorithm, Verdict } from '../../models/verdict.ts'
import { readTags } from './adapter-tags.ts'
import { completeEmbeddings, embeddingFields, type WantedEmbedding } from './embedding-input.ts'

/** Most adapters of one picture. */
const maxAdapters = 8
/** Beyond this a picture is noise. */
const maxWeight = 10
const outside = `must be from -${maxWeight} to ${maxWeight}`
const Weight = z.number().min(-maxWeight, outside).max(maxWeight, outside)

const Adapter = z.strictObject({
  model: ModelName.describe('name of a LoRA or one of its kin'),
  weight: Weight.default(1).describe('how much of its difference the network that draws has; below 0 it is taken away'),
  textWeight: Weight.optional().describe('how much of it the text encoders have; default: `weight`'),
})

/** What a form of a workflow that draws may say of adapters. */
export const adapterFields = {
  adapters: z
    .array(Adapter)
    .max(maxAdapters, `must be at most ${maxAdapters} adapters`)
    .optional()
    .describe('LoRA and its kin, in the order in which their differences are summed'),
  promptAdapters: z
    .boolean()
    .optional()
    .describe('`<lora:name:0.8>` in the prompt is an adapter, as AUTOMATIC1111’s web UI writes it, and `embedding:name` an embedding'),
  ...embeddingFields,
}

type Given = z.output<z.ZodObject<typeof adapterFields>> & { prompt: string; negativePrompt: string }
type Texts = Pick<Given, 'prompt' | 'negativePrompt'>
/** An adapter of a session: its hash is null until a step has computed it. */
export type WantedAdapter = Omit<AdapterPin, 'model'> & { model: { id: string; bodyHash: string | null } }
type Named = z.output<typeof Adapter> & { field: string }

/** Algorithms whose differences are computed. */
const computed: readonly Algorithm[] = ['lora', 'locon', 'dora', 'loha', 'lokr', 'diff', 'norm']

/**
 * What is used beside the model, looked up, and the texts without what names it; nothing of it where there is none.
 * @throws DarkroomError `api.invalid`, `model.unknown`, `model.unusable`
 */
export async function completeBeside(
  given: Given,
  model: { id: string; family: string },
  catalogue: Pick<Catalogue, 'named' | 'ofKind'>,
): Promise<Texts & { adapters?: WantedAdapter[]; embeddings?: WantedEmbedding[] }> {
  const { prompt, ...adapters } = await completeAdapters(given, model, catalogue)
  return { ...adapters, ...(await completeEmbeddings({ ...given, prompt }, model, catalogue)) }
}

/**
 * The prompt without the adapters that stand in it, and all adapters looked up; nothing of them where there are none.
 * @throws DarkroomError `api.invalid`, `model.unknown`, `model.unusable`
 */
async function completeAdapters(
  given: Given,
  model: { id: string },
  catalogue: Pick<Catalogue, 'named' | 'ofKind'>,
): Promise<{ prompt: string; adapters?: WantedAdapter[] }> {
  const { text, tags, problems: unheard } = given.promptAdapters ? readTags(given.prompt) : { text: given.prompt, tags: [], problems: [] }
  const problems: FieldProblem[] = unheard.map((message) => ({ field: 'input.prompt', message }))
  if (given.promptAdapters)
    for (const { name } of readTags(given.negativePrompt).tags)
      problems.push({
        field: 'input.negativePrompt',
        message: `names adapter ${name}: name it in \`prompt\`, it changes the whole picture`,
      })
  const wanted: Named[] = [
    ...(given.adapters ?? []).map((adapter, at) => ({ ...adapter, field: `input.adapters.${at}` })),
    ...tags.map(({ name, ...said }) => ({ ...said, model: name, field: 'input.prompt' })),
  ]
  problems.push(...faultsOf(wanted))
  if (problems.length > 0) throw invalidFields(problems)
  if (wanted.length === 0) return { prompt: text }
  const base = await catalogue.named(model.id, 'drawing')
  const found: Listed[] = []
  for (const { field, model: name } of wanted) {
    const listed = await catalogue.ofKind('lora', name, field === 'input.prompt' ? field : `${field}.model`)
    const problem = unfit(listed, base.entry.verdict, model.id)
    if (problem !== undefined) problems.push({ field: field === 'input.prompt' ? field : `${field}.model`, message: problem })
    found.push(listed)
  }
  if (problems.length > 0) throw invalidFields(problems)
  const adapters = wanted.map(({ weight, textWeight }, at) => ({
    model: { id: found[at]?.id ?? '', bodyHash: found[at]?.bodyHash ?? null },
    weight,
    ...(textWeight !== undefined && textWeight !== weight && { textWeight }),
  }))
  return { prompt: text, adapters }
}

/** What is wrong with a list of adapters, whatever they are. */
function faultsOf(wanted: readonly Named[]): FieldProblem[] {
  const problems: FieldProblem[] = []
  const seen = new Set<string>()
  for (const { field, model, weight, textWeight = weight } of wanted) {
    if (seen.has(model))
      problems.push({ field, message: `names adapter ${model} a second time: name it once, with the sum of the weights` })
    seen.add(model)
    // Those of the form were looked at with it.
    if (Math.max(Math.abs(weight), Math.abs(textWeight)) > maxWeight) problems.push({ field, message: `the weight of ${model} ${outside}` })
  }
  if (wanted.length > maxAdapters)
    problems.push({
      field: 'input.prompt',
      message: `names ${wanted.length} adapters with those of \`adapters\`; at most ${maxAdapters} are taken`,
    })
  return problems
}

/** Why an adapter is none for this model, as far as headers tell. */
function unfit({ id, entry: { isFolder, verdict } }: Listed, base: Verdict, model: string): string | undefined {
  const { algorithms = [], family, figures, format } = verdict
  const strange = algorithms.filter((algorithm) => !computed.includes(algorithm))
  if (strange.length > 0)
    return `${id} is made by ${strange.join(' and ')}, which is not drawn with; those that are: ${computed.join(', ')}`
  if (isFolder || format !== 'safetensors')
    return `${id} is kept as ${format}${isFolder ? ' in a folder' : ''}: put its safetensors file itself into a model folder`
  if (family !== undefined && base.family !== undefined && family !== base.family)
    return `${id} is an adapter for ${familyNames[family]}, and ${model} is a model of ${familyNames[base.family]}`
  const [own, other] = [figures.contextSize, base.figures.contextSize]
  if (own !== undefined && other !== undefined && own !== other)
    return `${id} is an adapter for models whose texts are vectors of ${own}, and those of model ${model} are of ${other}`
  return undefined
}
