/** The verdict of what the walk has found. */
import { inspectFolder, type FollowLinks } from './folder.ts'
import { formatOf, inspectFile } from './inspect.ts'
import { failed, type Verdict } from './verdict.ts'
import type { Found } from './found.ts'

/** `follow` says where links may lead. @throws whatever a file system throws that fails in the middle of it */
export async function judge({ path, real, isFolder, fault }: Found, follow: FollowLinks): Promise<Verdict> {
  if (fault) return failed(isFolder ? 'diffusers' : (formatOf(path) ?? 'safetensors'), fault)
  return isFolder ? inspectFolder(real, follow) : inspectFile(real)
}
