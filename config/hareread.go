package config

import "hanode/internal/spec"

// ResourcesNow is Resources as the file says it now. What that means, and whether it can be
// used, is for RereadResources to say.
func (n *Node) ResourcesNow() (string, error) {
	r := &haReport{}
	_, src := r.resources(n.HADir)
	if src == nil {
		return "", r.diags.err()
	}
	return ResourcesText(src), nil
}

// RereadResources reads haresources as it is now, by the same rules as at the start: text is
// Resources, and groups what LoadGroups would give. The other files must be sound as well.
// It may take seconds, where names have to be looked up.
func (n *Node) RereadResources(h HAHost) (text string, groups []spec.Group, err error) {
	hb, err := LoadHeartbeat(n.HADir, h, HAOptions{InsecureCRC: n.insecureCRC})
	if err == nil {
		err = hb.OnHost.err()
	}
	if err != nil {
		return "", nil, err
	}
	return hb.Node.Resources, hb.Groups, nil
}
