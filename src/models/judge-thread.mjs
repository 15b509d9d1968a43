/**
 * Looks at the headers of models in a thread, so that no event loop waits for their parsing. Plain JavaScript, because
 * only the main thread has the compiler: it takes one of its own.
 */
import { register } from 'tsx/esm/api'

register()
const { judge } = await import('./judge.ts')

/**
 * Their entries.
 * @param {{ some: readonly import('./judge.ts').Ranked[], roots: readonly import('./roots.ts').Root[] }} asked
 */
export default ({ some, roots }) => judge(some, roots)
