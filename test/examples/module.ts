/** The examples' workflows as a module that the processes of a farm load. */
import { approvedPicture } from '../../examples/approved-picture.ts'

export const workflows = [approvedPicture]
export const operations = {}
