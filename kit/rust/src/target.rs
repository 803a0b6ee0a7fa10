//! What the daemon is told of a device.

use crate::ring::Ring;

// virtio 1.4, 5.1.3: the features that make parts of the configuration necessary.
const MQ: u32 = 22;
const HASH_REPORT: u32 = 57;
const RSS: u32 = 60;

/// The JSON of a lent target, for [`crate::Client::prepare`].
///
/// `features` are the bits that were negotiated with this device, `config` its configuration space,
/// as VHOST_VDPA_GET_CONFIG gives it; it may end before what the features do not need.
pub fn target(ring: &Ring, features: u128, config: &[u8]) -> String {
    let at = |part: usize| ring.iova + part as u64;
    format!(
        "{{\"kind\":\"lent\",\"features\":[{}],\"config\":{{{}}},\"ring\":{{\"size\":{},\
         \"memory\":{{\"iova\":{},\"size\":{}}},\"descriptors\":{},\"available\":{},\"used\":{},\
         \"buffers\":{{\"iova\":{},\"size\":{}}}}}}}",
        bits(features),
        config_keys(features, config),
        ring.size,
        ring.iova,
        ring.length,
        ring.iova,
        at(ring.available),
        at(ring.used),
        at(ring.buffers),
        ring.length - ring.buffers,
    )
}

/// A list of bits, each by its number, which is a name that the daemon takes.
fn bits(mask: u128) -> String {
    let names: Vec<String> = (0..128)
        .filter(|bit| mask >> bit & 1 == 1)
        .map(|bit| format!("\"bit_{bit}\""))
        .collect();
    names.join(",")
}

/// The keys of struct virtio_net_config (virtio 1.4, 5.1.4) that the features make necessary.
fn config_keys(features: u128, config: &[u8]) -> String {
    let has = |bit: u32| features >> bit & 1 == 1;
    let number = |at: usize, bytes: usize| -> u32 {
        let found = config.iter().skip(at).take(bytes);
        found
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte))
    };
    let mut keys = Vec::new();
    if has(MQ) || has(RSS) {
        keys.push(format!("\"max_virtqueue_pairs\":{}", number(8, 2)));
    }
    if has(HASH_REPORT) || has(RSS) {
        keys.push(format!("\"rss_max_key_size\":{}", number(17, 1)));
        keys.push(format!(
            "\"rss_max_indirection_table_length\":{}",
            number(18, 2)
        ));
        keys.push(format!(
            "\"supported_hash_types\":[{}]",
            bits(number(20, 4).into())
        ));
    }
    keys.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_features_need_is_told_of_the_configuration() {
        let mut config = [0; 24];
        config[8] = 4;
        config[18..24].copy_from_slice(&[0, 1, 5, 0, 0, 0x80]);
        assert_eq!(config_keys(0, &config), "");
        assert_eq!(
            config_keys(1 << MQ, &config[..9]),
            "\"max_virtqueue_pairs\":4"
        );
        assert_eq!(
            config_keys(1 << HASH_REPORT, &config),
            "\"rss_max_key_size\":0,\"rss_max_indirection_table_length\":256,\
             \"supported_hash_types\":[\"bit_0\",\"bit_2\",\"bit_31\"]"
        );
    }
}
