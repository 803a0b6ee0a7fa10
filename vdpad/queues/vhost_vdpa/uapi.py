"""The numbers and structures of the kernel's vhost-vdpa interface; the methods are in node.py.

Constants have the header's names without VHOST_ and VHOST_VDPA_. The numbers are the same on x86-64
and arm64; tests/queues/vhost_vdpa/test_uapi.py holds them against a compiled header.

Source: Linux 6.12, include/uapi/linux/vhost.h and vhost_types.h.
"""

import struct
from enum import IntFlag

from vdpad.virtio.rings import Region

# --- ioctls ---

GET_FEATURES = 0x8008AF00
SET_FEATURES = 0x4008AF00
SET_OWNER = 0x0000AF01
SET_VRING_NUM = 0x4008AF10
SET_VRING_ADDR = 0x4028AF11
SET_VRING_BASE = 0x4008AF12
GET_VRING_BASE = 0xC008AF12
SET_VRING_KICK = 0x4008AF20
SET_VRING_CALL = 0x4008AF21
SET_BACKEND_FEATURES = 0x4008AF25
GET_BACKEND_FEATURES = 0x8008AF26
GET_DEVICE_ID = 0x8004AF70
GET_STATUS = 0x8001AF71
SET_STATUS = 0x4001AF72
GET_CONFIG = 0x8008AF73
SET_CONFIG = 0x4008AF74
SET_VRING_ENABLE = 0x4008AF75
GET_VRING_NUM = 0x8002AF76
SET_CONFIG_CALL = 0x4004AF77
GET_IOVA_RANGE = 0x8010AF78
GET_CONFIG_SIZE = 0x8004AF79
GET_AS_NUM = 0x8004AF7A
GET_VRING_GROUP = 0xC008AF7B
SET_GROUP_ASID = 0x4008AF7C
SUSPEND = 0x0000AF7D
RESUME = 0x0000AF7E
GET_VQS_COUNT = 0x8004AF80
GET_VRING_SIZE = 0xC008AF82

# --- what they take and give ---

U8 = struct.Struct("=B")
U16 = struct.Struct("=H")
U32 = struct.Struct("=I")
U64 = struct.Struct("=Q")
FD = struct.Struct("=i")
VRING_STATE = struct.Struct("=II")
"""struct vhost_vring_state: index, num."""
VRING_FILE = struct.Struct("=Ii")
"""struct vhost_vring_file: index, fd."""
VRING_ADDR = struct.Struct("=IIQQQQ")
"""struct vhost_vring_addr: index, flags, then descriptors, used, available, log. Of a packed ring
the device's area stands in the place of used, the driver's in that of available."""
IOVA_RANGE = struct.Struct("=QQ")
"""struct vhost_vdpa_iova_range: first, last."""
CONFIG_HEADER = struct.Struct("=II")
"""struct vhost_vdpa_config: off, len; the bytes follow."""

UNBIND = -1
"""The descriptor that stands for none, VHOST_FILE_UNBIND."""


class BackendFeature(IntFlag):
    """What the kernel's half of the device can do, VHOST_BACKEND_F_*."""

    IOTLB_MSG_V2 = 1 << 1
    IOTLB_BATCH = 1 << 2
    IOTLB_ASID = 1 << 3
    """Messages name an address space; without it the kernel takes all of them for space 0."""
    SUSPEND = 1 << 4
    RESUME = 1 << 5
    ENABLE_AFTER_DRIVER_OK = 1 << 6
    DESC_ASID = 1 << 7
    IOTLB_PERSIST = 1 << 8
    """Mappings stay through a reset; without it a driver may have dropped them."""


# --- IOTLB messages, which are written to the node ---

# struct vhost_msg_v2: type, asid, then struct vhost_iotlb_msg (iova, size, uaddr, perm, type).
_MSG_V2 = struct.Struct("=IIQQQBB38x")
_IOTLB_MSG_V2 = 2
_ACCESS_RW = 3
_IOTLB_UPDATE = 2
_IOTLB_INVALIDATE = 3


def push_iotlb_update(asid: int, region: Region, address: int) -> bytes:
    """The message that lets the device read and write our memory at this address."""
    return _MSG_V2.pack(
        _IOTLB_MSG_V2, asid, region.iova, region.size, address, _ACCESS_RW, _IOTLB_UPDATE
    )


def push_iotlb_invalidate(asid: int, region: Region) -> bytes:
    """The message that takes a region from the device again."""
    return _MSG_V2.pack(_IOTLB_MSG_V2, asid, region.iova, region.size, 0, 0, _IOTLB_INVALIDATE)
