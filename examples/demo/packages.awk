# What dpkg.log says about each package, in one pass: the same report as view
# package_report gives.
{
	entity = $3 == "status" ? $5 : $4
	if ($3 == "startup" || $3 == "conffile")
		entity = $3
	if (entity == "")
		entity = $3 == "" ? "unknown" : $3
	lines[entity]++
	if ($3 == "status") {
		if (!(entity in status) || status[entity] != $4)
			changes[entity]++
		status[entity] = $4
		version[entity] = $6
	} else if (($3 == "install" || $3 == "upgrade") && NF >= 6)
		versions[entity] = versions[entity] == "" ? $6 : versions[entity] "," $6
}

function said(value) { return value == "" ? "-" : value }

END {
	for (entity in lines)
		print entity "|" said(status[entity]) "|" said(version[entity]) "|" \
			said(versions[entity]) "|" changes[entity] + 0 "|" lines[entity]
}
