/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is the same for all kinds of disks (disk.h).
 */
#include "backend/disk.h"

#include <errno.h>

static int check_data(const struct disk_request *request)
{
	uint64_t bytes = 0;
	if (request->length > DISK_BYTES_MAX || !request->iov_count ||
	    request->iov_count > DISK_IOV_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < request->iov_count; i++) {
		if (request->iov[i].iov_len > DISK_BYTES_MAX)
			return -EINVAL;
		bytes += request->iov[i].iov_len;
	}
	return bytes == request->length ? 0 : -EINVAL;
}

int disk_request_check(const struct disk_info *info, const struct disk_request *request)
{
	if (request->op == DISK_FLUSH)
		return request->length ? -EINVAL : 0;
	if (!request->length || request->offset > info->bytes ||
	    request->length > info->bytes - request->offset ||
	    (request->offset | request->length) % info->block_bytes)
		return -EINVAL;
	switch (request->op) {
	case DISK_READ:
		return check_data(request);
	case DISK_WRITE:
		return info->read_only ? -EROFS : check_data(request);
	case DISK_DISCARD:
		return info->read_only ? -EROFS : info->discard ? 0 : -EOPNOTSUPP;
	case DISK_ZERO:
		return info->read_only ? -EROFS : info->zero ? 0 : -EOPNOTSUPP;
	default:
		return -EINVAL;
	}
}
