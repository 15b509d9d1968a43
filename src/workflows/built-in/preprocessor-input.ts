/** What a form says of a preprocessor, and which network it means by it. */
import type { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import { preprocessorWith } from '../../domains/preprocessors.ts'
import { ModelName } from '../../domains/values.ts'
import { invalidFields } from '../../errors.ts'
import { modelError } from '../../models/errors.ts'
import { preprocessorTasks, type PreprocessorTask } from '../../models/verdict.ts'
import type { UnpinnedPreprocessor } from './pinning.ts'

export const PreprocessorInput = preprocessorWith(
  ModelName.optional().describe(
    'name of the network that sees it, as GET /v1/models?kind=preprocessor lists it; may be left out where there is one alone',
  ),
)

const sees: Record<PreprocessorTask, string> = { depth: 'depth', segment: 'classes of things' }
const remedy =
  'Put its folder, with config.json, model.safetensors and preprocessor_config.json, into preprocessors/ or annotators/ of a model folder; docs/controlnet.md says which classes are known.'

/**
 * The preprocessor with its network, whose hash is asked for when nobody knows it.
 * @throws DarkroomError `api.invalid`, `model.unknown`, `model.unusable`, `model.unlisted`
 */
export async function completePreprocessor(
  preprocessor: z.output<typeof PreprocessorInput>,
  catalogue: Pick<Catalogue, 'all' | 'ofKind'>,
  at: string,
): Promise<UnpinnedPreprocessor> {
  const task = preprocessorTasks.find((each) => each === preprocessor.name)
  if (!task) return preprocessor as UnpinnedPreprocessor
  const name = ('model' in preprocessor ? preprocessor.model : undefined) ?? (await only(task, catalogue, `${at}.model`))
  const { id, bodyHash, entry } = await catalogue.ofKind('preprocessor', name, `${at}.model`)
  const own = entry.verdict.task
  if (own !== task)
    throw invalidFields([
      { field: `${at}.model`, message: `${id} sees ${own ? sees[own] : 'something else'}, not ${sees[task]}: name one that does` },
    ])
  return { name: task, model: { id, bodyHash } }
}

/** The name of the one network that sees this. */
async function only(task: PreprocessorTask, catalogue: Pick<Catalogue, 'all'>, field: string): Promise<string> {
  const able = (await catalogue.all('preprocessor', field)).filter(({ entry }) => entry.verdict.task === task)
  const [first, ...more] = able
  if (!first) throw modelError('unknown', `there is no preprocessor that sees ${sees[task]}`, { field, remedy })
  if (more.length === 0) return first.id
  const names = able.slice(0, 5).map(({ id }) => id)
  throw invalidFields([
    {
      field,
      message: `is missing: ${able.length} preprocessors see ${sees[task]}; name one of ${names.join(', ')}${able.length > 5 ? ' …' : ''}`,
    },
  ])
}
