"""Surnames and given-name syllables, written by hand from common knowledge: Chinese in both scripts, Hong Kong, pinyin."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COMPOUND_ZH = _words(
    "歐陽 欧阳 司徒 司馬 司马 上官 諸葛 诸葛 夏侯 皇甫 尉遲 尉迟 公孫 公孙 慕容 令狐 端木 東方 东方 獨孤 南宮 南宫 張簡 范姜"
)
SINGLE_ZH = frozenset(
    "王李張张劉刘陳陈楊杨黃黄趙赵吳吴周徐孫孙馬马朱胡郭何高林羅罗鄭郑梁謝谢宋唐許许鄧邓馮冯韓韩曹曾彭蕭萧肖蔡潘田董袁"
    "于余葉叶蔣蒋杜蘇苏魏程呂吕丁沈任姚盧卢傅鍾钟姜崔譚谭廖范汪陸陆金石戴賈贾韋韦夏邱方侯鄒邹熊孟秦白江閻阎薛尹段雷黎史龍龙"
    "陶賀贺顧顾毛郝龔龚邵萬万錢钱嚴严賴赖覃洪武莫孔湯汤向常溫温康施文牛樊葛邢安齊齐易喬乔伍龐庞顏颜倪莊庄聶聂章魯鲁岳"
    "翟殷詹申歐欧耿關关蘭兰焦俞左柳甘祝包甯宁尚符舒阮柯紀纪梅童凌畢毕單单季裴霍塗涂成苗谷盛曲翁冉駱骆藍蓝路游辛靳歐管柴蒙"
    "鮑鲍華华喻祁蒲房滕屈饒饶解牟艾尤陽阳時时穆農农司卓古吉繆缪簡简車车項项連连蘆芦麥麦褚婁娄竇窦戚岑景黨党宮宫費费卜冷晏席"
    "衛卫米柏宗瞿桂全佟應应臧閔闵苟鄔邬邊边卞姬師师和仇欒栾隋商刁沙榮荣巫寇桑郎甄叢丛仲虞敖巩明佘池查麻苑遲迟鄺邝官封譙"
    "鞠惠荊荆樂乐芮藺蔺蕢蒯練练冼冼區区招幸勞劳布植利伦倫談谈鄂容湛禤"
)
# Surnames that are rarely the start of another word, for names without a word in front.
PLAIN_ZH = frozenset(
    "王李張张劉刘陳陈楊杨黃黄趙赵吳吴周徐孫孙朱胡郭何林羅罗鄭郑梁謝谢宋唐許许鄧邓馮冯韓韩曹曾彭蕭萧蔡潘董袁葉叶蔣蒋蘇苏魏"
    "呂吕沈姚盧卢傅鍾钟姜崔譚谭廖范汪陸陆戴賈贾韋韦邱鄒邹薛尹黎陶賀贺龔龚邵嚴严賴赖湯汤溫温莊庄聶聂顏颜倪詹歐欧俞阮柯凌駱骆翁"
    "鄺邝冼岑霍麥麦區饒饶屈關关"
)
GIVEN_ZH = frozenset(
    "志強强偉伟明文華华國国建軍军平傑杰俊浩然宇軒轩子豪健家樂乐嘉欣怡詩诗雅婷慧敏玲芳麗丽娟英秀珍美蘭兰霞燕紅红梅雪琴"
    "雲云麟龍龙鳳凤生榮荣輝辉祥福貴贵昌盛德仁義义禮礼智信忠孝永春秋夏冬東东海江濤涛波洋泉林森樹树松柏柱石磊峰山川成功勝胜利"
    "斌武彬剛刚勇毅力寧宁靜静佳瑩莹穎颖潔洁瑤瑶琳琪珊珠玉瑛瑜倩娜媛媚嫻娴婉淑貞贞惠君如意曉晓晨曦旭陽阳光耀思恩念安康泰和"
    "謙谦恆恒凱凯旋威廷庭漢汉學学良賢贤才達达遠远宏弘鴻鸿鵬鹏飛飞翔宗祖啟启銘铭堅坚柏卓朗晴悅悦彤霖澤泽潤润涵瀚清源滿满容"
    "蓉芬芝蓮莲菊萍薇蕾詠咏儀仪瑞琦基業业展創创新民權权正義仲季伯仕世少大小亮超越群宜宛冰心妍姿姍姗楓枫桐桂桃梓楠博熙穗"
    "倫伦邦維维綺绮紹绍素細细金銀银銳锐鑫鈞钧錦锦鎮镇添順顺顯显頌颂馨駿骏騰腾"
    "培堂奇坤妙娥巧帆希帥帅廣广弟彥彦彪彰律愛爱慈懷怀成振捷操敬旺昊昕景晶智月木本権李柔榕欽钦歡欢洪淇淳湘溢玥玫珮珏璇璐"
    "甜申男皓益真瞳碧祐秉程穎立竹筠約约紫翠翰聖圣聰聪育自舒航芊茜荷莉莎菁菲萱葉蕙藝艺虹衡裕訓训誠诚諾诺賓宾賜赐軍辰迪逸進进道"
    "鄉錫锡長长開开雁雄霄青韻韵音風风香驥鴻黛齊齐兆兒儿其冠冬凡劍剑勤勳勋千升卉南友可合同向吟哲善喜嘯"
)
GIVEN_ZH |= frozenset(
    "財财蓁柳龙雷利帅博宗帅翊宸熠煜烨燁琛瑾璟珺琬琰瑄菡萌蔓薔芸茵茹葵芙蓓蘊淼渝沛汐沁泓洲浚涓漪澄瀟潇灝炎炳烽焯煒炜煌熹燊爍牧獻玟珈珩琨璋琮瓊琼睿碩硕祺禎祯禕"
    "竣筱純纯綸纶緯纬羽翎翱肇胤臻舟芷茂茗荃菱蔚蘅虔衍謹谨讓豫貝贝贯赫迅逢邁迈郁釗钊鈴铃銓铨鋒锋鍵键雋隽雯霏頤颐馥驊驍骁鳴鸣麒鼎齡龄"
    "帆滔濱滨沖冲冰卉岚嵐峻崇嵩巍庚彤律復怀恂悠悟惟慈慕戈承抒拓政敖斐斯昀昂昇昕昭晏晟晗晞暄暉晖暢畅曙朋本杏枝柔栩梁棋棟栋楷榆槐橋檀欽歆毓"
)
# Characters that follow a name rather than belong to it.
NOT_GIVEN_ZH = frozenset(
    "的了在是有與与及因被把到說说去來来入住今昨現现已患診诊訴诉年月日歲岁女於由曾經经為为將将先等對对從从向給给能會会要想就也都"
    "不沒没未無无很我你他她它佢嘅咗喺係唔啲冇嚟話话喎呀啦㗎嗰呢吖啊嗎吗吧哦噉咁個个位名至仍請请於需接收服電电身病手術術檢检查"
    "出院前後后時时並并但則则即又再只這这那此其之以所而或者令讓让醫医叫打問问答看見见陪帶带送食做用每度境釋释漠約约約共同號号報报告"
)
TITLES_ZH = "先生|女士|小姐|太太|醫生|医生|醫師|医师|護士|护士|教授|主任|老師|老师|同學|同学|婆婆|伯伯|伯母|阿姨|經理|经理|律師|律师|院長|院长|姑娘|師傅|师傅|叔叔|大夫|博士|生"
HONG_KONG = _words(
    "Au Auyeung Chan Chang Chau Cheng Cheuk Cheung Chiang Chin Ching Chiu Cho Choi Chong Chow Choy Chu Chui Chun Chung Fan Fok Fong Foo Fu Fung "
    "Hau Ho Hon Hong Hou Hui Hung Ip Kam Kan Ko Kong Koo Kot Kung Kwan Kwok Kwong Lai Lam Lau Law Lee Leung Li Liang Liu Lo Lok Loong Lui Luk "
    "Lun Lung Ma Mak Man Mok Mui Ng Ngai Ngan Or Pak Pang Poon Pun Sham Shek Shum Sin Sit Siu So Suen Sum Sun Sung Sze Szeto Tai Tam Tan Tang "
    "To Tong Tsang Tse Tsoi Tso Tsui Tung Wai Wan Wat Wong Woo Wu Yan Yau Yeung Yim Yip Yiu Yu Yue Yuen Yung Zee"
)
PINYIN = _words(
    "Wang Li Zhang Liu Chen Yang Huang Zhao Wu Zhou Xu Sun Ma Zhu Hu Guo He Lin Gao Luo Zheng Liang Xie Song Tang Deng Han Feng Cao Peng Zeng "
    "Xiao Tian Dong Yuan Pan Cai Jiang Yu Du Ye Cheng Su Wei Lu Ding Ren Shen Yao Jiang Cui Zhong Tan Wang Fan Shi Liao Jia Xia Fu Fang Zou "
    "Xiang Wen Gan Gui Bian Geng Guan Ji Jian Jin Jing Ju Lan Leng Ling Lou Mi Miao Min Mu Nie Ning Niu Ou Pei Ping Pu Qiao Qu Quan Rao Rong Ruan "
    "Sang Sha Shang Shu Si Sui Teng Tong Weng Wei Xi Xian Xin Xing Xuan Yi Ying You Yue Yun Zang Zhai Zhan Zhen Zhuang Zhuo Zong Zuo Chu Chi Cui Bao Bi Bo "
    "Bai Xiong Meng Qin Qiu Hou Yan Xue Lei Duan Long Tao He Gu Mao Hao Gong Shao Wan Qian Dai Yin Kong Qi Lai Mo Tu Ouyang Situ Shangguan"
)
FIRST_EN = _words(
    "Adam Alan Albert Alex Alexander Alice Alison Amanda Amy Andrea Andrew Andy Angela Angel Ann Anna Anne Annie Anthony Arthur Ashley Barbara Ben "
    "Benjamin Betty Bill Billy Bob Bonnie Brandon Brenda Brian Calvin Carmen Carol Caroline Carrie Catherine Cathy Charles Charlie Charlotte "
    "Cheryl Chloe Chris Christian Christina Christine Christopher Cindy Claire Clara Connie Crystal Cynthia Daisy Daniel David Debbie Deborah "
    "Denise Dennis Derek Diana Donald Donna Doris Dorothy Douglas Eddie Edmond Edward Edwin Elaine Elizabeth Ellen Emily Emma Eric Eva Evelyn "
    "Fiona Florence Frances Francis Frank Fred Gary George Gigi Gina Gloria Grace Greg Gregory Hannah Harold Harry Heather Heidi Helen Henry Herman "
    "Ian Irene Iris Isabella Ivan Ivy Jack Jackson Jacky Jacob James Jane Janet Janice Jason Jean Jeff Jeffrey Jennifer Jenny Jeremy Jessica Jill "
    "Jimmy Joan Joanna Joe John Johnny Jonathan Joseph Joshua Joyce Judy Julia Julie Justin Karen Kate Katherine Kathleen Kathy Katie Keith Kelly "
    "Kelvin Ken Kenneth Kenny Kevin Kimberly Kitty Kyle Larry Laura Lawrence Leo Leonard Leslie Lily Linda Lisa Louis Louise Lucy Maggie Mandy "
    "Margaret Maria Marie Marilyn Mark Martha Martin Mary Matthew May Melissa Michael Michelle Mike Miranda Monica Nancy Natalie Nathan Nelson "
    "Nicholas Nicole Noah Olivia Oscar Pamela Patrick Patricia Patty Paul Pauline Peggy Peter Philip Phoebe Polly Rachel Ralph Raymond Rebecca "
    "Richard Ricky Robert Robin Roger Ronald Rose Roy Russell Ruth Ryan Sally Sam Samantha Samuel Sandra Sandy Sara Sarah Scott Sean Sharon Shirley "
    "Simon Sophia Sophie Stanley Stella Stephanie Stephen Steve Steven Stuart Susan Sylvia Teresa Terry Thomas Tiffany Tim Timothy Tina Tom Tommy "
    "Tony Tracy Tyler Vanessa Vera Vicky Victor Victoria Vincent Virginia Vivian Walter Wayne Wendy Wilfred William Willie Wilson Winnie Yvonne Zoe"
)
FIRST_EN |= _words(
    "Aaron Abbie Abby Abigail Adrian Aidan Aimee Albert Alexandra Alexis Alfie Alfred Alicia Allan Allison Alyssa Amber Amelia Amir Amit Anil Anita Antony "
    "April Arnold Ashleigh Audrey Austin Ava Barry Beatrice Becky Belinda Bernard Bethan Bethany Beth Beverly Blake Bradley Brad Brandon Brett Bridget Bruce "
    "Bryan Caitlin Cameron Camilla Candice Carl Carla Carlos Carly Caroline Cassandra Cecilia Chad Chelsea Clare Clifford Clive Cody Colin Connor Conor Corey "
    "Courtney Craig Curtis Dale Damian Damien Damon Dan Danielle Danny Darren Dave Dawn Dean Debra Declan Deepak Dominic Don Donna Dora Duncan Dylan Edgar Edith "
    "Eileen Eleanor Elena Eliza Ella Ellie Elliot Elliott Elsie Emilia Erica Erik Erin Ernest Ethan Eugene Evan Faith Felicity Felix Francesca Freda Gareth Garry "
    "Gavin Gail Gemma Geoffrey Georgia Georgina Gerald Gerard Geraldine Gillian Glen Glenn Glenda Gordon Graham Grant Gwen Harriet Harrison Harvey Hayley Hazel "
    "Hilary Hollie Holly Howard Hugh Hugo Imogen Irene Isabel Isabelle Jackie Jacqueline Jade Jake Jamie Jan Jared Jasmine Jay Jeffery Jenna Jeremiah Jerome Jerry "
    "Jesse Jessie Jim Jo Joann Joanne Jodie Joel Jon Jordan Jose Josephine Josh Joy Juan Juanita Judith Kara Karl Katharine Kathryn Katrina Kayla Kayleigh Keeley "
    "Keira Kelsey Kerry Kieran Kim Kirsten Kirsty Kristen Kristin Kristina Kurt Lance Lara Lauren Laurence Lawrence Leah Leanne Lee Leigh Leon Leonard Lewis Liam "
    "Lillian Lindsay Lindsey Lloyd Logan Lois Lora Loretta Lori Lorraine Louis Lucas Luke Lydia Lynda Lyndsey Lynn Lynne Mabel Madeline Madison Malcolm Marc Marcia "
    "Marcus Maria Marian Marie Marina Marion Marjorie Marlene Marsha Marvin Mason Mathew Maureen Maurice Max Maxine Megan Melanie Melinda Melvin Mercedes Meredith "
    "Mildred Miles Millie Miriam Mitchell Mohamed Mohammad Mohammed Mollie Molly Morgan Muhammad Nadia Naomi Natasha Neil Nicola Nigel Nina Noel Nora Norma Norman "
    "Oliver Olive Owen Paige Pat Paula Penelope Penny Perry Pete Phil Phillip Phyllis Poppy Priya Rahul Raj Rajesh Randall Randy Ray Rebekah Reece Regina Rhys Rhonda "
    "Ricardo Rita Rob Roberta Roderick Rodney Rosa Rosalind Rosemary Ross Rowan Roxanne Ruby Rupert Sabrina Sadie Sana Sanjay Santiago Sasha Sebastian Seth Shane "
    "Shannon Shaun Shawn Sheila Shelley Sheryl Sian Sidney Simone Sonia Sophia Stacey Stacy Stan Steph Stewart Sue Suresh Suzanne Tamara Tammy Tanya Tara Ted Terence "
    "Teri Terri Theodore Theresa Thelma Tiffany Toby Todd Tracey Travis Trevor Tristan Troy Tyrone Ursula Valerie Vanessa Vernon Veronica Vijay Violet Wanda Warren "
    "Wesley Whitney Will Willie Yasmin Yolanda Zachary Zara Zoe"
)
# Usual surnames of English, South Asian and Filipino families in Hong Kong: behind any capitalised word they make a name.
LAST_EN = _words(
    "Adams Allen Anderson Bailey Baker Barnes Bautista Bell Bennett Brooks Brown Bryant Butler Campbell Carter Castillo Clark Clarke Coleman Collins Cook Cooper Cox Cruz "
    "Davies Davis Diaz Edwards Evans Fernandez Fisher Flores Foster Garcia Gomez Gonzales Gonzalez Graham Gray Green Griffin Gurung Gutierrez Hall Hamilton Harris Harrison Henderson Hernandez "
    "Hill Hughes Jackson James Jenkins Johnson Johnston Jones Kaur Kelly Kennedy Khan King Kumar Lewis Limbu Lopez Marshall Martin Martinez Mendoza Miller Mitchell Moore Morales Morgan Morris "
    "Murphy Murray Myers Nelson Nguyen Ortiz Parker Patel Perera Perez Perry Peterson Phillips Powell Price Rai Ramirez Ramos Reed Reyes Reynolds Richardson Rivera Roberts Robertson Robinson "
    "Rodriguez Rogers Ross Russell Sanchez Sanders Santos Scott Shah Sharma Shaw Simmons Simpson Singh Smith Stevens Stewart Sullivan Taylor Thapa Thomas Thompson Thomson Torres Turner Walker Wallace "
    "Ward Watson Watts Webb White Wilkinson Williams Wilson Wood Wright Young Ahmed Ali Hussain Hussein Begum Iqbal Malik Bibi Villanueva Aquino Magar Tamang Shrestha Fernandes Silva Rodrigues"
)
# Capitalised words that stand where a name could, and places with the sound of one.
NOT_NAMES_EN = _words(
    "The This That These Those He She It They We You I His Her Their Our Your My A An And Or But If When While Then There Here With Without For From To "
    "Of In On At By As Is Was Were Are Has Had Have Denies Denied Reports Reported Complains Presented Presents Admitted Discharged Seen Reviewed Known "
    "No Not Please See Note Notes Date Time Age Sex Male Female Patient Patients Name Names Doctor Nurse Hospital Clinic Ward Bed Department Street Road "
    "Lane Avenue Estate Court House Building Tower Block Flat Floor Room Station Park Centre Center Bay Island Hong Kong Kowloon New Territories China "
    "University College School Queen Prince King Princess Saint Cancer Tumour Tumor Stage Grade Disease Syndrome Test Blood History Family Social Past "
    "Medical Surgical Drug Allergy Allergies Phone Tel Mobile Email Address Account Card Number Id Dob Hkid Mrn Contact Next Kin Monday Tuesday Wednesday "
    "Thursday Friday Saturday Sunday January February March April June July August September October November December Dear Sir Madam Mr Mrs Ms Miss Dr "
    "Prof Regards Thanks Thank Yes How What Why Who Where Which Can Could May Might Must Will Would Should Shall Do Does Did All Any Some Each Every "
    "Care Plan Treatment Follow Up Referred Booked Called Asked Requested Attended Attends Lives Living Works Working Safety Education Information Consent"
)
# Districts and estates of Hong Kong whose words are surnames and syllables too.
PLACES_EN = (
    "Wong Tai Sin|Sai Ying Pun|Tsim Sha Tsui|Tseung Kwan O|Ho Man Tin|Lai Chi Kok|Mong Kok|Yau Ma Tei|Yuen Long|Tuen Mun|Tai Po|Sha Tin|"
    "Tsuen Wan|Chai Wan|Wan Chai|Kwun Tong|Kwai Chung|Kwai Fong|Tin Shui Wai|Lam Tin|Lo Wu|Ma On Shan|Tai Wai|Shau Kei Wan|Sham Shui Po|"
    "San Po Kong|Tsing Yi|Tung Chung|Fo Tan|Wong Chuk Hang|Ap Lei Chau|Kai Tak|Hung Hom|To Kwa Wan|Tai Koo|Lok Fu|Sai Kung|Sheung Shui|"
    "Tai Koo Shing|Mei Foo|Kennedy Town|Queen Mary|Princess Margaret|Prince of Wales|Queen Elizabeth|Pamela Youde|Yan Chai|Kwong Wah|"
    "Happy Valley|North Point|Quarry Bay|Causeway Bay|Sheung Wan|Repulse Bay|Kowloon City|Kowloon Tong|Diamond Hill|Choi Hung|Ngau Tau Kok|Lai King|"
    "Tai Hang|Cheung Chau|Discovery Bay|Mui Wo|Hung Shui Kiu|Tiu Keng Leng|Po Lam|Hang Hau|Sau Mau Ping|Tsz Wan Shan|Cheung Sha Wan|Nam Cheong|"
    "Tung Wah|Chinese University|Hong Kong|New Territories|Pok Fu Lam|Tuen Ng|Chung Yeung|Mid Autumn|Yu Chau"
)
